//! An apply in stages: what ethtool sets, a new look at the host, the rest.
//!
//! A driver makes its queues and interrupts anew when the number of channels or the size of rings changes, and may
//! overwrite XPS and the RSS table. What was planned for the queues of before is then planned again on those of now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::apply::{Transaction, preflight};
use crate::host::ethtool::{Knob, channel_counts};
use crate::host::{Host, InterfaceChoice};
use crate::journal::State;
use crate::kernel_files::KernelFiles;
use crate::plan::Skipped;
use crate::profile::Profile;
use crate::setting::{Change, Setting};
use crate::{Applied, Error, Planned, plan_profile, verify};

/// How often what ethtool sets is planned and set, since a driver may overwrite one thing when another is set.
const ROUNDS: usize = 3;

/// How long a driver may take to make its queues anew, and how often it is looked at meanwhile.
const SETTLE_DEADLINE: Duration = Duration::from_secs(3);
const SETTLE_POLL: Duration = Duration::from_millis(50);

/// Writes what is planned as one transaction, and verifies it.
pub(crate) fn run(
    files: &KernelFiles,
    state: &State,
    profile: &Profile,
    planned: Planned,
) -> Result<Applied, Error> {
    if planned.changes.is_empty() {
        return Ok(applied(planned, Vec::new(), false));
    }
    preflight(files, &planned.host, &planned.changes)?;
    let choice = InterfaceChoice::Named(planned.host.nic.name.clone());
    let profile = Profile { interface: choice.clone(), ..profile.clone() };
    let required = |setting: &Setting| match setting {
        Setting::Ethtool(_, knob) => profile.ethtool.requires(*knob),
        _ => true,
    };
    let mut transaction = Transaction::begin(files, state)?;
    let mut now = planned;
    for round in 0.. {
        let ethtool = of_ethtool(&now.changes);
        let Some(first) = ethtool.first() else { break };
        if round == ROUNDS {
            let cause = format!(
                "{} holds {} again after it was set {ROUNDS} times",
                first.setting.path(),
                first.before
            );
            return Err(transaction.fail(cause).into());
        }
        let rebuilds = ethtool.iter().any(|change| is_rebuild(&change.setting));
        let overwritten = if rebuilds { of_queues(&now.host) } else { Vec::new() };
        transaction.write(&now.host, &ethtool, &overwritten, required)?;
        now = match settle(files, &profile, rebuilds) {
            Ok(planned) => planned,
            Err(error) => {
                return Err(transaction
                    .fail(format!("after {} was set, {error}", first.setting.path()))
                    .into());
            }
        };
        without(&mut now, &transaction.unsupported);
    }
    transaction.write(&now.host, &now.changes, &[], required)?;
    let verified = Host::read(files, &choice, &profile.sysctl_names())
        .map_err(|error| error.to_string())
        .map(|host| verify::verify(&now.desired, &host));
    let pending = match verified {
        Ok(verification) => match verification.mismatches.first() {
            None => verification.pending,
            Some(mismatch) => return Err(transaction.fail(format!("after writing, {mismatch}")).into()),
        },
        Err(error) => return Err(transaction.fail(error).into()),
    };
    let written = std::mem::take(&mut transaction.written);
    Ok(Applied { pending, ..applied(now, written, transaction.replaced_journal) })
}

/// Takes out what the driver turned out not to have; it is skipped.
fn without(planned: &mut Planned, unsupported: &BTreeMap<Setting, String>) {
    planned.changes.retain(|change| !unsupported.contains_key(&change.setting));
    for (setting, reason) in unsupported {
        planned.desired.settings.remove(setting);
        planned.desired.skipped.push(Skipped { wish: setting.path(), reason: reason.clone() });
    }
}

pub(crate) fn applied(planned: Planned, changes: Vec<Change>, replaced_journal: bool) -> Applied {
    Applied {
        interface: planned.host.nic.name,
        changes,
        kept: planned.desired.kept,
        skipped: planned.desired.skipped,
        pending: Vec::new(),
        replaced_journal,
    }
}

fn is_rebuild(setting: &Setting) -> bool {
    matches!(setting, Setting::Ethtool(_, knob) if knob.rebuilds_queues())
}

/// The changes that ethtool makes, in the order in which the kernel takes them: channels first, except that a table
/// that names a channel that goes must be set before (`ethnl_set_channels()` refuses it else).
fn of_ethtool(changes: &[Change]) -> Vec<Change> {
    let mut ethtool: Vec<Change> =
        changes.iter().filter(|change| matches!(change.setting, Setting::Ethtool(..))).cloned().collect();
    let shrinks = ethtool.iter().any(|change| {
        let receiving = |value: &str| -> Option<u32> {
            let counts = channel_counts(value).ok()?;
            Some(counts.iter().filter(|(kind, _)| *kind != "tx").map(|(_, number)| number).sum())
        };
        matches!(change.setting, Setting::Ethtool(_, Knob::Channels))
            && receiving(&change.after.to_string()) < receiving(&change.before.to_string())
    });
    let is_table = |change: &Change| matches!(change.setting, Setting::Ethtool(_, Knob::Rss));
    ethtool.sort_by_key(|change| (!(shrinks && is_table(change)), change.setting.clone()));
    ethtool
}

/// Everything of the interface's queues and interrupts that a driver may reset.
fn of_queues(host: &Host) -> Vec<Setting> {
    let name = &host.nic.name;
    let irqs = host.queue_irqs.rows.iter().map(|row| Setting::IrqAffinity(row.irq));
    let xps = host.nic.tx_queues.iter().filter(|queue| queue.xps_cpus.is_some());
    let xps = xps.map(|queue| Setting::XpsCpus(name.clone(), queue.index));
    let rps = host.nic.rx_queues.iter().filter(|queue| queue.rps_cpus.is_some()).flat_map(|queue| {
        [Setting::RpsCpus(name.clone(), queue.index), Setting::RpsFlowCount(name.clone(), queue.index)]
    });
    irqs.chain(xps).chain(rps).collect()
}

/// Plans again. After queues were made anew it waits until two looks in a row see the same queues and interrupts: some
/// drivers do it in the background.
fn settle(files: &KernelFiles, profile: &Profile, rebuilt: bool) -> Result<Planned, Error> {
    let deadline = Instant::now() + SETTLE_DEADLINE;
    let mut seen = plan_profile(files, profile);
    while rebuilt && files.is_live() && Instant::now() < deadline {
        std::thread::sleep(SETTLE_POLL);
        let next = plan_profile(files, profile);
        let settled = matches!((&seen, &next), (Ok(seen), Ok(next)) if same_queues(&seen.host, &next.host));
        seen = next;
        if settled {
            break;
        }
    }
    seen
}

fn same_queues(one: &Host, other: &Host) -> bool {
    let counts = |host: &Host| (host.nic.rx_queues.len(), host.nic.tx_queues.len());
    counts(one) == counts(other)
        && one.queue_irqs == other.queue_irqs
        && one.ethtool.text(Knob::Channels) == other.ethtool.text(Knob::Channels)
}
