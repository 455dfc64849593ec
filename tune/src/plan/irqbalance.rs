//! irqbalance: told to leave the interrupts alone that are placed. Pure.

use std::collections::BTreeSet;

use super::{Desired, PlanError, Skipped};
use crate::host::Irq;
use crate::irqbalance::{Irqbalance, IrqbalanceError, message};
use crate::profile::IrqbalancePolicy;
use crate::setting::{Setting, Value};

/// Adds the ban of every interrupt that `desired` places. Without any there is nothing to leave alone.
pub(super) fn plan(
    policy: IrqbalancePolicy,
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
    let wish = match policy {
        IrqbalancePolicy::Coexist => return Ok(()),
        _ if placed.is_empty() => return Ok(()),
        IrqbalancePolicy::Ban => "irqbalance = \"ban\"",
        IrqbalancePolicy::Stop => "irqbalance = \"stop\"",
    };
    let mut skip = |reason: String| desired.skipped.push(Skipped { wish: wish.to_owned(), reason });
    match irqbalance {
        Irqbalance::Absent if policy == IrqbalancePolicy::Stop => {}
        Irqbalance::Absent => skip("irqbalance does not run here".to_owned()),
        Irqbalance::Unknown(reason) => skip(reason.clone()),
        Irqbalance::Running(daemons) if policy == IrqbalancePolicy::Stop => {
            let pids: Vec<String> = daemons.iter().map(|daemon| daemon.pid.to_string()).collect();
            return Err(PlanError::IrqbalanceRuns { pids: pids.join(", ") });
        }
        Irqbalance::Running(daemons) => {
            // What a message to one of them would have to hold.
            let longest = daemons.iter().map(|daemon| &daemon.banned_irqs | &placed);
            if let Some(list) = longest.into_iter().find(|list| message::ban(list).is_none()) {
                skip(IrqbalanceError::TooLong { count: list.len() }.to_string());
                return Ok(());
            }
            let banned = irqbalance.banned().unwrap_or_default();
            let value = Value::from_irqs(&(&banned | &placed));
            desired.set(Setting::IrqbalanceBan, value, "irqbalance would move the interrupts again");
        }
    }
    Ok(())
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
        // Of two daemons what both leave alone counts: 9 is the business of one, 40 must be banned by the other, too.
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
        let stop = "irqbalance = \"stop\"";
        assert_eq!(skipped(stop, Irqbalance::Absent), (None, vec![]));
        assert_eq!(skipped(stop, unknown()), reason("irqbalance = \"stop\": nobody knows"));
        let many: Vec<u32> = (1000..1100).collect();
        let (ban, said) = skipped("", running(&[&many]));
        assert_eq!(ban, None);
        assert_eq!(
            said,
            ["irqbalance = \"ban\": irqbalance reads 500 bytes of a list, and 102 interrupts take more"]
        );
    }

    #[test]
    fn stop_is_refused_with_the_command_while_it_runs() {
        let refusal = planned("irqbalance = \"stop\"", running(&[&[], &[]])).unwrap_err();
        assert!(
            refusal.contains("(process 812, 813)") && refusal.contains("systemctl stop irqbalance"),
            "{refusal}"
        );
    }
}
