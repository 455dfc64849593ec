//! irqbalance: told to leave the interrupts alone that are placed. Pure.

use std::collections::BTreeSet;

use super::{Desired, PlanError};
use crate::host::Irq;
use crate::irqbalance::{Irqbalance, IrqbalanceError, message};
use crate::profile::{IrqbalancePolicy, IrqbalanceWish};
use crate::setting::{Setting, Value};

/// Adds the ban of every interrupt that `desired` places. Without any there is nothing to leave alone.
pub(super) fn plan(
    wish: IrqbalanceWish,
    irqbalance: &Irqbalance,
    desired: &mut Desired,
) -> Result<(), PlanError> {
    let placed: BTreeSet<Irq> = desired
        .settings
        .keys()
        .filter_map(|setting| match setting {
            Setting::IrqAffinity(irq) => Some(*irq),
            _ => None,
        })
        .collect();
    if wish.policy == IrqbalancePolicy::Coexist || placed.is_empty() {
        return Ok(());
    }
    let (reason, require) = match irqbalance {
        // Nothing moves them.
        Irqbalance::Absent => ("irqbalance does not run here".to_owned(), false),
        Irqbalance::Unknown(reason) => (reason.clone(), wish.require),
        Irqbalance::Running(daemons) => {
            // What a message to one of them would have to hold.
            let longest = daemons.iter().map(|daemon| &daemon.banned_irqs | &placed);
            match longest.into_iter().find(|list| message::ban(list).is_none()) {
                Some(list) => (IrqbalanceError::TooLong { count: list.len() }.to_string(), wish.require),
                None => {
                    let banned = irqbalance.banned().unwrap_or_default();
                    let value = Value::from_irqs(&(&banned | &placed));
                    desired.set(Setting::IrqbalanceBan, value, "irqbalance would move the interrupts again");
                    return Ok(());
                }
            }
        }
    };
    desired.cannot(require, "irqbalance = \"ban\"".to_owned(), reason)
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;
    use crate::host::fixture::{nic_host, veth_host};
    use crate::irqbalance::Daemon;
    use crate::profile::Profile;

    fn running(banned: &[&[u32]]) -> Irqbalance {
        let daemon = |(pid, irqs): (u32, &&[u32])| Daemon {
            pid,
            banned_irqs: irqs.iter().copied().map(Irq).collect(),
        };
        Irqbalance::Running((812..).zip(banned).map(daemon).collect())
    }

    /// The ban list and what is skipped, or the refusal, on a host with IRQs 40 and 41.
    fn planned(profile: &str, irqbalance: Irqbalance) -> Result<(Option<String>, Vec<String>), String> {
        let mut host = nic_host(2, 2);
        host.irqbalance = irqbalance;
        let profile = Profile::parse(profile, "p").unwrap();
        let desired = plan(&profile, &host).map_err(|error| error.to_string())?;
        let ban = desired.settings.get(&Setting::IrqbalanceBan).map(ToString::to_string);
        assert_eq!(ban.is_some(), desired.reasons.contains_key(&Setting::IrqbalanceBan));
        Ok((
            ban,
            desired
                .skipped
                .into_iter()
                .map(|skipped| format!("{}: {}", skipped.wish, skipped.reason))
                .collect(),
        ))
    }

    #[test]
    fn what_is_banned_stays_banned_and_ours_are_added() {
        let ban = |daemons: &[&[u32]]| planned("", running(daemons)).unwrap();
        assert_eq!(ban(&[&[]]), (Some("40 41".into()), vec![]));
        assert_eq!(ban(&[&[0, 9, 41, 100]]), (Some("0 9 40 41 100".into()), vec![]));
        // Of two daemons what both leave alone counts: 9 is the business of one, 40 must be banned by the
        // other, too.
        assert_eq!(ban(&[&[9, 40], &[7, 8]]), (Some("40 41".into()), vec![]));
    }

    #[test]
    fn without_placed_interrupts_or_without_the_wish_it_is_left_alone() {
        for profile in ["irqbalance = \"coexist\"", "[queues]\nirq = \"keep\"\nrps = \"off\""] {
            assert_eq!(planned(profile, running(&[&[]])), Ok((None, vec![])), "{profile}");
        }
        let desired = plan(&Profile::parse("", "p").unwrap(), &veth_host(2, 2)).unwrap();
        assert_eq!(desired.skipped, []);
    }

    #[test]
    fn what_cannot_be_had_is_skipped_with_the_reason_once() {
        let skipped = |profile, irqbalance| planned(profile, irqbalance).unwrap();
        let reason = |text: &str| (None, vec![text.to_owned()]);
        assert_eq!(
            skipped("", Irqbalance::Absent),
            reason("irqbalance = \"ban\": irqbalance does not run here")
        );
        let unknown = || Irqbalance::Unknown("nobody knows".into());
        assert_eq!(skipped("", unknown()), reason("irqbalance = \"ban\": nobody knows"));
        let many: Vec<u32> = (1000..1100).collect();
        let (ban, said) = skipped("", running(&[&many]));
        assert_eq!(ban, None);
        assert_eq!(
            said,
            ["irqbalance = \"ban\": irqbalance reads 500 bytes of a list, and 102 interrupts take more"]
        );
    }

    #[test]
    fn where_it_is_required_one_that_cannot_be_told_refuses_the_profile_and_none_does_not() {
        let required = |irqbalance| planned("irqbalance = { policy = \"ban\", require = true }", irqbalance);
        let refusal = required(Irqbalance::Unknown("nobody knows".into())).unwrap_err();
        assert!(
            refusal.starts_with("irqbalance = \"ban\": nobody knows; the profile requires it"),
            "{refusal}"
        );
        let many: Vec<u32> = (1000..1100).collect();
        assert!(required(running(&[&many])).unwrap_err().contains("102 interrupts take more"));
        assert_eq!(required(Irqbalance::Absent).unwrap().0, None);
        assert_eq!(required(running(&[&[]])).unwrap().0, Some("40 41".into()));
    }
}
