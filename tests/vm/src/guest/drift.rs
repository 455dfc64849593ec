//! What others change after apply: `tune check` names it, `tune watch --repair` repairs it.

use anyhow::{Result, bail};

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
    let deeds = deeds()?;
    serving::check_apply(table)?;
    let mut counts = Vec::new();
    for deed in &deeds {
        deed.run()?;
        let drifted = drifted()?;
        check_named(deed.name, &drifted, table)?;
        counts.push(drifted.len());
        programs::profile("apply")?.expect(0)?;
    }
    let watch = Watch::start()?;
    for (deed, count) in deeds.iter().zip(counts).filter(|(_, count)| *count > 0) {
        deed.run()?;
        wait::until("watch --repair repairs what drifted", || Ok(drifted()?.is_empty().then_some(())))?;
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
    Ok(())
}

/// The deeds; those with another number of queues also put the old one back.
fn deeds() -> Result<Vec<Deed>> {
    let all = nic::queues()?;
    let irqs: Vec<String> =
        nic::vectors()?.queues.into_values().flatten().map(|irq| irq.to_string()).collect();
    let (irqs, cpus) = (irqs.join(" "), nic::online()?);
    let commands = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    Ok(vec![
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

/// What is not as applied, by the kernel's files; not asked of `tune`.
fn drifted() -> Result<Vec<String>> {
    let mut drifted = nic::wrong_with_a_queue_for_each_cpu()?;
    if nic::read("/proc/sys/net/ipv4/tcp_migrate_req")? != "1" {
        drifted.push("tcp_migrate_req".to_owned());
    }
    Ok(drifted)
}

/// Checks that `tune check` says exactly whether something drifted, and names a setting for each queue that
/// did.
fn check_named(deed: &str, drifted: &[String], table: &mut Table) -> Result<()> {
    let check = programs::profile("check")?;
    let lines = check.stdout.lines().count();
    let wanted = if drifted.is_empty() { 0 } else { 2 };
    table.check(
        &format!("{deed}: check says what drifted"),
        check.code == wanted && lines >= drifted.len(),
        format!("exit status {}, {lines} settings; by the kernel's files {}", check.code, drifted.len()),
    );
    if check.code != wanted {
        bail!("check: {}{}; the files: {drifted:?}", check.stdout, check.stderr);
    }
    Ok(())
}
