//! A CPU goes offline while its worker serves, and comes back.

use std::fs;

use anyhow::{Context, Result, bail};
use rustix::process::Pid;
use tune::cpu_set::{Cpu, CpuSet};

use super::programs::{self, Load, Server, Watch, number};
use super::table::Table;
use super::{nic, serving, wait};

/// The CPU.
const CPU: Cpu = 5;

pub(super) fn run(table: &mut Table) -> Result<()> {
    serving::check_apply(table)?;
    // The list of CPUs as it is now: while one is away, `tune` is asked for the same ones.
    let check = programs::with_profile("check")?;
    let check = || programs::tune(&check.iter().map(String::as_str).collect::<Vec<_>>());

    let server = Server::start("cpu")?;
    let mut load = Load::start(200, 200)?;
    wait_for_connections(&mut load)?;
    set_online(false)?;
    let away = check()?;
    table.check(
        "CPU offline under load: check cannot tell, exit status 1",
        away.code == 1,
        away.stderr.lines().last().unwrap_or_default(),
    );
    let running = !load.has_ended()?;
    set_online(true)?;
    table.check("the load ran while the CPU was away", running, format!("CPU {CPU}"));
    let back = check()?;
    // virtio_net sets its queues up anew when a CPU comes or goes, and may have done what is wanted.
    let drifted = nic::wrong_with_a_queue_for_each_cpu()?.len();
    let wanted = if drifted == 0 { 0 } else { 2 };
    table.check(
        "CPU back: check says what drifted",
        back.code == wanted,
        format!(
            "exit status {}, {} settings; by the kernel's files {drifted}",
            back.code,
            back.stdout.lines().count()
        ),
    );
    wait::until("the worker is on its CPU again", || {
        Ok((affinity(server.pid())? == nic::only(CPU)).then_some(()))
    })?;
    table.check("CPU back: the server's worker is bound to it again", true, format!("worker-{CPU}"));
    let echoed = number(&load.finish()?, "/operations")?;
    table.check(
        "every byte came back all the while",
        echoed == 40_000,
        format!("{echoed} of 40000 messages"),
    );
    server.stop()?;

    programs::profile("apply")?.expect(0)?;
    watched(table)?;
    let seen = serving::serve("cpu")?;
    seen.check_echoes("CPU back", table)?;
    seen.check_locality("CPU back", 0.995, table)?;
    programs::tune(&["restore"])?.expect(0)?;
    Ok(())
}

/// The CPU goes and comes back while `tune watch --repair` runs.
fn watched(table: &mut Table) -> Result<()> {
    let watch = Watch::start()?;
    set_online(false)?;
    wait::until("the kernel moves the queue's interrupt", || {
        Ok((!nic::wrong_with_a_queue_for_each_cpu()?.is_empty()).then_some(()))
    })?;
    set_online(true)?;
    wait::until("watch --repair repairs it", || {
        Ok(nic::wrong_with_a_queue_for_each_cpu()?.is_empty().then_some(()))
    })?;
    let code = watch.stop()?;
    table.check(
        "CPU away and back: watch --repair repairs it",
        code == 0,
        format!("{} queues", nic::queues()?),
    );
    Ok(())
}

fn set_online(online: bool) -> Result<()> {
    let path = format!("/sys/devices/system/cpu/cpu{CPU}/online");
    fs::write(&path, if online { "1" } else { "0" }).with_context(|| format!("write {path}"))
}

/// Waits until the connections of the client stand.
fn wait_for_connections(load: &mut Load) -> Result<()> {
    wait::until("200 connections", || {
        if load.has_ended()? {
            bail!("load has ended before its connections stood");
        }
        let sockets = nic::read("/proc/net/sockstat")?;
        let line = sockets.lines().find_map(|line| line.strip_prefix("TCP: inuse "));
        let count: u32 =
            line.and_then(|line| line.split(' ').next()?.parse().ok()).context("/proc/net/sockstat")?;
        Ok((count >= 200).then_some(()))
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
