//! An apply in stages: what ethtool sets, a new look at the host, the rest.
//!
//! A driver makes its queues and interrupts anew when the number of channels or the size of rings changes,
//! and may overwrite XPS and the RSS table. What was planned for the queues of before is then planned again
//! on those of now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::apply::{Transaction, preflight};
use crate::host::ethtool::{Knob, channel_counts};
use crate::host::{Host, InterfaceName, NicHost};
use crate::journal::State;
use crate::kernel_files::KernelFiles;
use crate::plan::Skipped;
use crate::profile::Profile;
use crate::setting::{Change, Setting};
use crate::{Applied, Error, Planned, plan_host, read_again, verify};

/// How often what ethtool sets is planned and set, since a driver may overwrite one thing when another is
/// set.
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
    let interfaces = planned.host.interfaces();
    let required = |setting: &Setting| requires(profile, setting);
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
        transaction.write(&now.host, &ethtool, &overwritten(&now.host, &ethtool), required)?;
        now = match settle(files, profile, &interfaces, &ethtool) {
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
    let verified = read_again(files, profile, &interfaces)
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
pub(crate) fn without(planned: &mut Planned, unsupported: &BTreeMap<Setting, String>) {
    planned.changes.retain(|change| !unsupported.contains_key(&change.setting));
    for (setting, reason) in unsupported {
        planned.desired.settings.remove(setting);
        planned.desired.skipped.push(Skipped { wish: setting.path(), reason: reason.clone() });
    }
}

/// True if what the driver turns out not to have is a failure.
pub(crate) fn requires(profile: &Profile, setting: &Setting) -> bool {
    match setting {
        Setting::Ethtool(_, knob) => profile.ethtool.requires(*knob),
        _ => true,
    }
}

/// What is left of a plan, without changes.
pub(crate) fn applied(planned: Planned, changes: Vec<Change>, replaced_journal: bool) -> Applied {
    Applied {
        interfaces: planned.host.interfaces(),
        changes,
        kept: planned.desired.kept,
        skipped: planned.desired.skipped,
        notes: planned.desired.notes,
        pending: Vec::new(),
        replaced_journal,
        failed: Vec::new(),
    }
}

fn is_rebuild(setting: &Setting) -> bool {
    matches!(setting, Setting::Ethtool(_, knob) if knob.rebuilds_queues())
}

/// The changes that ethtool makes, in the order in which the kernel takes them: channels first, except that a
/// table that names a channel that goes must be set before (`ethnl_set_channels()` refuses it else).
pub(crate) fn of_ethtool(changes: &[Change]) -> Vec<Change> {
    let mut ethtool: Vec<Change> =
        changes.iter().filter(|change| matches!(change.setting, Setting::Ethtool(..))).cloned().collect();
    let shrinking: BTreeSet<InterfaceName> = ethtool
        .iter()
        .filter(|change| shrinks(change))
        .filter_map(|change| change.setting.interface())
        .collect();
    let is_table_first = |setting: &Setting| match setting {
        Setting::Ethtool(interface, Knob::Rss) => shrinking.contains(interface),
        _ => false,
    };
    ethtool.sort_by_key(|change| {
        let interface = change.setting.interface();
        (interface, !is_table_first(&change.setting), change.setting.clone())
    });
    ethtool
}

/// True if fewer channels receive afterwards.
fn shrinks(change: &Change) -> bool {
    let receiving = |value: &str| -> Option<u32> {
        let counts = channel_counts(value).ok()?;
        Some(counts.iter().filter(|(kind, _)| *kind != "tx").map(|(_, number)| number).sum())
    };
    matches!(change.setting, Setting::Ethtool(_, Knob::Channels))
        && receiving(&change.after.to_string()) < receiving(&change.before.to_string())
}

/// Everything of queues and interrupts that drivers may reset for these changes.
pub(crate) fn overwritten(host: &Host, changes: &[Change]) -> Vec<Setting> {
    let rebuilt = |name: &InterfaceName| {
        changes
            .iter()
            .any(|change| is_rebuild(&change.setting) && change.setting.interface().as_ref() == Some(name))
    };
    host.nics.iter().filter(|on| rebuilt(&on.nic.name)).flat_map(NicHost::queue_settings).collect()
}

/// Plans again after these changes. After queues were made anew it waits until two looks in a row see the
/// same queues and interrupts: some drivers do it in the background.
pub(crate) fn settle(
    files: &KernelFiles,
    profile: &Profile,
    interfaces: &[InterfaceName],
    changes: &[Change],
) -> Result<Planned, Error> {
    let look = || plan_host(files, profile, read_again(files, profile, interfaces)?);
    let rebuilt = changes.iter().any(|change| is_rebuild(&change.setting));
    let deadline = Instant::now() + SETTLE_DEADLINE;
    let mut seen = look();
    while rebuilt && files.is_live() && Instant::now() < deadline {
        std::thread::sleep(SETTLE_POLL);
        let next = look();
        let settled = matches!((&seen, &next), (Ok(seen), Ok(next)) if same_queues(&seen.host, &next.host));
        seen = next;
        if settled {
            break;
        }
    }
    seen
}

fn same_queues(one: &Host, other: &Host) -> bool {
    let counts = |on: &NicHost| (on.nic.rx_queues.len(), on.nic.tx_queues.len());
    let same = |one: &NicHost, other: &NicHost| {
        counts(one) == counts(other)
            && one.queue_irqs == other.queue_irqs
            && one.ethtool.text(Knob::Channels) == other.ethtool.text(Knob::Channels)
    };
    one.nics.len() == other.nics.len()
        && one.nics.iter().zip(&other.nics).all(|(one, other)| same(one, other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::Value;

    #[test]
    fn a_table_comes_before_the_channels_of_its_interface_where_those_become_fewer() {
        let change = |interface: &str, knob, before: &str, after: &str| Change {
            setting: Setting::Ethtool(interface.parse().unwrap(), knob),
            before: Value::Words(before.into()),
            after: Value::Words(after.into()),
        };
        let changes = [
            change("eth0", Knob::Channels, "combined 4", "combined 8"),
            change("eth0", Knob::Rss, "table 0*64", "equal 8"),
            change("eth1", Knob::Channels, "combined 8", "combined 4"),
            change("eth1", Knob::Rss, "table 7*64", "equal 4"),
        ];
        let order: Vec<String> = of_ethtool(&changes).iter().map(|change| change.setting.path()).collect();
        assert_eq!(
            order,
            ["ethtool/eth0/channels", "ethtool/eth0/rss", "ethtool/eth1/rss", "ethtool/eth1/channels"]
        );
    }
}
