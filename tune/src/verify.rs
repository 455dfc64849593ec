//! `verify(&Desired, &Host)`: does the host, read again, hold what was desired? Pure.

use std::fmt;

use crate::cpu_set::CpuSet;
use crate::host::{Host, Irq, IrqState};
use crate::plan::Desired;
use crate::setting::{Setting, Value, satisfies};

/// What does not agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verification {
    /// Settings that do not hold their value.
    pub mismatches: Vec<Mismatch>,
    /// Interrupts whose set affinity is right while the controller is still programmed with another CPU. It
    /// follows at the next interrupt, so this is no failure unless that has come ([`stuck`]).
    pub pending: Vec<PendingMove>,
}

/// A setting that does not hold its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} holds {found}, not \"{desired}\"", path = .setting.path(), found = show(.found.as_ref()))]
pub struct Mismatch {
    /// The setting.
    pub setting: Setting,
    /// What it shall hold.
    pub desired: Value,
    /// What it holds; `None` if it is gone.
    pub found: Option<Value>,
}

fn show(found: Option<&Value>) -> String {
    found.map_or_else(|| "nothing any more".to_owned(), |value| format!("\"{value}\""))
}

/// An interrupt that still fires where it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingMove {
    /// The interrupt.
    pub irq: Irq,
    /// Where it shall fire.
    pub affinity: CpuSet,
    /// Where the controller still sends it.
    pub effective: CpuSet,
}

impl PendingMove {
    /// The kernel file that says where it fires.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/irq/{}/effective_affinity_list", self.irq)
    }
}

impl fmt::Display for PendingMove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IRQ {} is set to {} and still fires on {}", self.irq, self.affinity, self.effective)
    }
}

/// A pending move, and how often the interrupt has fired where it shall not any more.
pub type Fired = (PendingMove, u64);

/// Those of two looks that are pending at both and have fired meanwhile where they shall not: the first
/// interrupt after the write should have moved them.
#[must_use]
pub fn stuck(before: &[Fired], now: &[Fired]) -> Vec<PendingMove> {
    let fired = |(pending, count): &&Fired| before.iter().any(|(then, less)| then == pending && less < count);
    now.iter().filter(fired).map(|(pending, _)| pending.clone()).collect()
}

/// Compares what was desired with the host.
#[must_use]
pub fn verify(desired: &Desired, host: &Host) -> Verification {
    let mut verification = Verification::default();
    for (setting, value) in &desired.settings {
        let found = host.value(setting);
        if !found.as_ref().is_some_and(|found| satisfies(setting, found, value)) {
            let mismatch = Mismatch { setting: setting.clone(), desired: value.clone(), found };
            verification.mismatches.push(mismatch);
        } else if let Setting::IrqAffinity(irq) = setting {
            verification.pending.extend(host.irq(*irq).and_then(|state| pending(*irq, state)));
        }
    }
    verification
}

/// The move of an interrupt that its controller has not followed.
#[must_use]
pub fn pending(irq: Irq, state: &IrqState) -> Option<PendingMove> {
    let effective = state.effective.clone()?;
    let follows = effective.is_subset(&state.affinity);
    (!follows).then(|| PendingMove { irq, affinity: state.affinity.clone(), effective })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixture::nic_host;
    use crate::plan::plan;
    use crate::profile::Profile;

    fn desired(host: &Host) -> Desired {
        plan(&Profile::parse("[queues]\nxps = \"keep\"\nrps = \"keep\"", "p").unwrap(), host).unwrap()
    }

    #[test]
    fn a_value_that_is_not_there_is_a_mismatch() {
        let mut host = nic_host(2, 2);
        let desired = desired(&host);
        host.nics[0].irqs.remove(&Irq(41));
        let found = verify(&desired, &host).mismatches;
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "/proc/irq/40/smp_affinity_list holds \"0-1\", not \"0\"",
                "/proc/irq/41/smp_affinity_list holds nothing any more, not \"1\""
            ]
        );
    }

    #[test]
    fn a_controller_that_lags_behind_is_pending_and_no_failure() {
        let mut host = nic_host(2, 2);
        let desired = desired(&host);
        for (cpu, state) in (0..).zip(host.nics[0].irqs.values_mut()) {
            state.affinity = CpuSet::from_iter([cpu]);
            state.effective = Some("0".parse().unwrap());
        }
        let found = verify(&desired, &host);
        assert_eq!(found.mismatches, []);
        let pending: Vec<Irq> = found.pending.iter().map(|pending| pending.irq).collect();
        assert_eq!(pending, [Irq(41)]);
    }

    #[test]
    fn one_that_fires_again_where_it_shall_not_is_stuck() {
        let pending = |irq, effective: &str| PendingMove {
            irq: Irq(irq),
            affinity: "0".parse().unwrap(),
            effective: effective.parse().unwrap(),
        };
        let before = [(pending(38, "1"), 5), (pending(39, "1"), 5), (pending(40, "1"), 5)];
        assert_eq!(stuck(&before, &before), [], "none has fired");
        let now = [(pending(38, "1"), 6), (pending(40, "2"), 7), (pending(41, "1"), 9)];
        assert_eq!(stuck(&before, &now), [pending(38, "1")], "39 has moved, 40 elsewhere, 41 is new");
        assert_eq!(now[0].0.to_string(), "IRQ 38 is set to 0 and still fires on 1");
    }
}
