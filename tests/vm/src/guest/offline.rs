//! A CPU goes offline while its worker serves, and comes back; irqbalance runs all the time.

use std::fs;

use anyhow::{Context, Result, bail};
use rustix::process::Pid;
use tune::cpu_set::{Cpu, CpuSet};

use super::drift::check_named;
use super::files::Files;
use super::irqbalance::Irqbalance;
use super::programs::{self, Load, Output, Server, Watch, number};
use super::table::Table;
use super::{nic, serving, wait};

/// The CPU.
const CPU: Cpu = 5;

/// So many that each queue has some: the kernel moves a worker only when it has something to do.
const CONNECTIONS: u32 = 1000;

pub(super) fn run(table: &mut Table) -> Result<()> {
    let all = nic::online()?;
    let irqbalance = Irqbalance::start()?;
    serving::check_apply(table)?;
    served(&all, table)?;
    // virtio_net sets its queues up anew when a CPU comes or goes, and may have done what is wanted.
    let drifted = nic::wrong_with_a_queue_for_each_cpu()?;
    check_named("CPU back", &drifted, table)?;

    programs::profile("apply")?.expect(0)?;
    watched(&all, !drifted.is_empty(), table)?;
    let seen = serving::serve("cpu")?;
    seen.check_echoes("CPU back", table)?;
    seen.check_locality("CPU back", 0.995, table)?;
    irqbalance.check_left_alone(table)?;
    programs::tune(&["restore"])?.expect(0)?;
    irqbalance.check_given_back(table)
}

/// The CPU goes and comes back while connections are served.
fn served(all: &CpuSet, table: &mut Table) -> Result<()> {
    let server = Server::start("cpu")?;
    let mut load = Load::start(CONNECTIONS, 40_000 / CONNECTIONS)?;
    wait_for_connections(&mut load)?;
    set_online(false)?;
    let away = server.wait_for(&format!("core {CPU}: its CPU is offline"))?;
    table.check("CPU offline under load: the server says so", true, away);
    check_refused("check", all, table)?;
    let running = !load.has_ended()?;
    set_online(true)?;
    table.check("the load ran while the CPU was away", running, format!("CPU {CPU}"));
    let back =
        server.wait_for(&format!("core {CPU}: its worker had left its CPU and is bound to it again"))?;
    table.check(
        "CPU back: the server's worker is bound to it again, and says so",
        affinity(server.pid())? == nic::only(CPU),
        back,
    );
    let echoed = number(&load.finish()?, "/operations")?;
    table.check(
        "every byte came back all the while",
        echoed == 40_000,
        format!("{echoed} of 40000 messages"),
    );
    server.stop()?;
    Ok(())
}

/// The CPU goes and comes back while `tune watch --repair` runs: before it is back nothing is written.
fn watched(all: &CpuSet, drifts: bool, table: &mut Table) -> Result<()> {
    let watch = Watch::start()?;
    set_online(false)?;
    wait::until("the kernel moves the interrupts of the CPU's queue", || {
        let queues = nic::read_queues()?;
        let own = queues.get(&CPU).context("the CPU's queue")?;
        Ok(own.irqs.values().all(|cpus| !cpus.contains(CPU)).then_some(()))
    })?;
    watch.wait_for(&format!("cannot tell: {}", missing(all)))?;
    let (before, queues) = (Files::read()?.without_interrupts(), nic::read_queues()?);
    check_refused("apply", all, table)?;
    let after = Files::read()?.without_interrupts();
    table.none(
        "CPU offline: neither apply nor watch changes a file",
        &before.differences(&after),
        format!("{} files", after.len()),
    );
    let same = nic::read_queues()? == queues;
    table.check("nor they or irqbalance an interrupt of a queue", same, format!("{} queues", queues.len()));
    set_online(true)?;
    if drifts {
        watch.wait_for("repaired: ")?;
    }
    wait::until("all is as wanted", || Ok(nic::wrong_with_a_queue_for_each_cpu()?.is_empty().then_some(())))?;
    let by = if drifts { "watch --repair" } else { "the driver" };
    table.check("CPU back: all is as wanted again", true, format!("{} queues, by {by}", nic::queues()?));
    let code = watch.stop()?;
    table.check("watch ends by SIGTERM with exit status 0", code == 0, format!("exit status {code}"));
    Ok(())
}

/// Checks that a command of `tune` with the profile for all CPUs says that one is missing.
fn check_refused(command: &str, all: &CpuSet, table: &mut Table) -> Result<()> {
    let cpus = all.to_string();
    let Output { code, stdout, stderr } = programs::tune(&[command, "40g.toml", "--cpus", &cpus])?;
    let said = format!("{stdout}{stderr}");
    let (name, missing) = (format!("CPU offline: {command} says it, exit status 1"), missing(all));
    table.check(&name, code == 1 && said.contains(&missing), said.trim_end());
    Ok(())
}

/// What `tune` says while the CPU is away.
fn missing(all: &CpuSet) -> String {
    let online = all.difference(&nic::only(CPU));
    format!("the profile's CPUs {all} are not all on this host: {CPU} missing, online are {online}")
}

fn set_online(online: bool) -> Result<()> {
    let path = format!("/sys/devices/system/cpu/cpu{CPU}/online");
    fs::write(&path, if online { "1" } else { "0" }).with_context(|| format!("write {path}"))
}

/// Waits until the connections of the client stand.
fn wait_for_connections(load: &mut Load) -> Result<()> {
    wait::until("the connections stand", || {
        if load.has_ended()? {
            bail!("load has ended before its connections stood");
        }
        let sockets = nic::read("/proc/net/sockstat")?;
        let line = sockets.lines().find_map(|line| line.strip_prefix("TCP: inuse "));
        let count: u32 =
            line.and_then(|line| line.split(' ').next()?.parse().ok()).context("/proc/net/sockstat")?;
        Ok((count >= CONNECTIONS).then_some(()))
    })
}

/// The CPUs on which the worker of [`CPU`] may run.
fn affinity(server: Pid) -> Result<CpuSet> {
    let tasks = format!("/proc/{}/task", server.as_raw_nonzero());
    for task in fs::read_dir(&tasks).with_context(|| format!("list {tasks}"))? {
        let task = task.with_context(|| format!("list {tasks}"))?.path();
        if nic::read(task.join("comm"))? == format!("worker-{CPU}") {
            let status = nic::read(task.join("status"))?;
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            return Ok(list.context("Cpus_allowed_list")?.trim().parse()?);
        }
    }
    bail!("the server has no worker-{CPU}");
}
