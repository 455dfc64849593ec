//! What others change after apply: `tune check` names it, `tune watch --repair` repairs it.

use anyhow::{Result, bail};

use super::irqbalance::Irqbalance;
use super::nic::Wrong;
use super::programs::{self, Watch};
use super::serving;
use super::table::Table;
use super::{nic, wait};

/// Something that somebody does to the NIC: its name and the commands, one after the other.
struct Deed {
    name: &'static str,
    commands: Vec<String>,
}

pub(super) fn run(table: &mut Table) -> Result<()> {
    let all = nic::queues()?;
    let deeds = deeds(all)?;
    let irqbalance = Irqbalance::start_idle()?;
    serving::check_apply(table)?;
    let mut counts = Vec::new();
    for deed in &deeds {
        deed.run()?;
        let drifted = drifted(&irqbalance)?;
        check_named(deed.name, &drifted, table)?;
        counts.push(drifted.len());
        programs::profile("apply")?.expect(0)?;
    }
    table.check("ethtool -L to half the queues is a drift", counts[0] > 0, counts[0]);
    let watch = Watch::start()?;
    for (deed, count) in deeds.iter().zip(counts).filter(|(_, count)| *count > 0) {
        deed.run()?;
        // While the driver makes its queues anew, they cannot be read.
        let is_repaired = || drifted(&irqbalance).is_ok_and(|drifted| drifted.is_empty());
        wait::until("watch --repair repairs what drifted", || Ok(is_repaired().then_some(())))?;
        table.check(
            &format!("{}: watch --repair repairs it", deed.name),
            true,
            format!("{count} as wanted again"),
        );
    }
    let code = watch.stop()?;
    table.check("watch ends by SIGTERM with exit status 0", code == 0, format!("exit status {code}"));
    let check = programs::profile("check")?;
    table.check(
        "check after the repairs: exit status 0",
        check.code == 0,
        format!("exit status {}", check.code),
    );
    programs::tune(&["restore"])?.expect(0)?;
    // What somebody else had set when `tune` first changed it is what it puts back: half the queues.
    nic::set_channels(all)?;
    irqbalance.check_list(table)
}

/// The deeds; the first one is a drift with every driver.
fn deeds(all: u32) -> Result<Vec<Deed>> {
    let irqs: Vec<String> = nic::irqs()?.into_iter().map(|irq| irq.to_string()).collect();
    let (irqs, cpus) = (irqs.join(" "), nic::online()?);
    let commands = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Ok(vec![
        Deed {
            name: "ethtool -L to half the queues",
            commands: vec![format!("ethtool -L eth0 combined {}", all / 2)],
        },
        Deed {
            name: "ethtool -L to half the queues and back",
            commands: vec![
                format!("ethtool -L eth0 combined {}", all / 2),
                format!("ethtool -L eth0 combined {all}"),
            ],
        },
        Deed { name: "ethtool -G", commands: commands(&["ethtool -G eth0 rx 128"]) },
        // With the link goes the route, which whoever manages the network puts back.
        Deed {
            name: "link down and up",
            commands: commands(&[
                "ip link set eth0 down",
                "ip link set eth0 up",
                "ip route replace default via 10.0.0.2",
            ]),
        },
        Deed {
            name: "a script spreads the interrupts",
            commands: vec![format!("for i in {irqs}; do echo {cpus} >/proc/irq/$i/smp_affinity_list; done")],
        },
        Deed { name: "somebody's hand", commands: commands(&["echo 0 >/proc/sys/net/ipv4/tcp_migrate_req"]) },
    ])
}

impl Deed {
    fn run(&self) -> Result<()> {
        for command in &self.commands {
            programs::run("sh", &["-c", command])?.expect(0)?;
        }
        Ok(())
    }
}

/// What is not as applied, by the kernel's files and irqbalance; not asked of `tune`.
fn drifted(irqbalance: &Irqbalance) -> Result<Vec<Wrong>> {
    let mut drifted = nic::wrong_with_a_queue_for_each_cpu()?;
    drifted.extend(irqbalance.free()?);
    let migrate = nic::read("/proc/sys/net/ipv4/tcp_migrate_req")?;
    if migrate != "1" {
        drifted.push(Wrong::new("/proc/sys/net/ipv4/tcp_migrate_req", migrate));
    }
    Ok(drifted)
}

/// Checks that `tune check` has a line for everything that drifted, and none where nothing did.
pub(super) fn check_named(what: &str, drifted: &[Wrong], table: &mut Table) -> Result<()> {
    let check = programs::profile("check")?;
    let lines = check.stdout.lines().count();
    let is_named = |wrong: &&Wrong| check.stdout.lines().any(|line| line.contains(&wrong.object));
    let unnamed: Vec<&Wrong> = drifted.iter().filter(|wrong| !is_named(wrong)).collect();
    let wanted = if drifted.is_empty() { 0 } else { 2 };
    let holds = check.code == wanted && unnamed.is_empty() && (lines > 0) == (wanted == 2);
    table.check(
        &format!("{what}: check names all that drifted"),
        holds,
        format!("exit status {}, {lines} lines; by the kernel's files {}", check.code, drifted.len()),
    );
    if !holds {
        bail!("check: {}{}; not named: {unnamed:?} of {drifted:?}", check.stdout, check.stderr);
    }
    Ok(())
}
