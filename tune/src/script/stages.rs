//! Which changes a script makes, and which must wait until the driver has made its queues anew. Pure.
//!
//! The queues of a virtual interface are known beforehand: they have no interrupts, and what a new one holds
//! does not matter, since everything is set that is wanted of it. What a device makes of its interrupts, and
//! which threads poll new queues, is only seen afterwards.

use std::collections::BTreeSet;

use super::{ethtool_can_make, is_table};
use crate::Planned;
use crate::host::ethtool::Knob;
use crate::host::{Host, InterfaceName, NicHost};
use crate::plan::{self, Desired, PlanError, Skipped};
use crate::profile::Profile;
use crate::setting::{Change, Setting, Value};
use crate::stages::{of_ethtool, overwritten};

/// One setting that a script writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is set.
    pub setting: Setting,
    /// What it holds; `None` for a queue that is there only when the channels are set.
    pub before: Option<Value>,
    /// What it shall hold.
    pub after: Value,
}

/// A plan in the form in which a script can follow it.
#[derive(Debug)]
pub struct Script {
    /// The plan, with what a script cannot do among what is skipped.
    pub planned: Planned,
    /// What is written, in this order.
    pub steps: Vec<Step>,
    /// What the driver may overwrite, and the way back puts back.
    pub overwritten: Vec<Setting>,
    /// The interfaces whose queues can only be set by a further script.
    pub again: BTreeSet<InterfaceName>,
}

impl Script {
    /// Orders the changes of a plan.
    ///
    /// # Errors
    /// If the profile cannot be had on the host that has the planned channels.
    pub fn new(profile: &Profile, mut planned: Planned) -> Result<Self, PlanError> {
        skip_tables(&mut planned);
        let overwritten = overwritten(&planned.host, &planned.changes);
        let rebuilt: BTreeSet<InterfaceName> = overwritten_interfaces(&planned);
        let is_known = |name: &InterfaceName| {
            let of_device = |on: &NicHost| on.nic.device.is_some() || on.netdev.has_threads();
            !planned.host.nics.iter().any(|on| on.nic.name == *name && of_device(on))
        };
        let (known, again): (BTreeSet<_>, BTreeSet<_>) = rebuilt.iter().cloned().partition(is_known);
        let mut steps: Vec<Step> = of_ethtool(&planned.changes).iter().map(Step::from).collect();
        let waits = |setting: &Setting| {
            is_made_anew(&planned.host, &rebuilt, setting)
                || (!again.is_empty() && *setting == Setting::IrqbalanceBan)
        };
        let others = planned.changes.iter().filter(|change| !matches!(change.setting, Setting::Ethtool(..)));
        let mut rest: Vec<Step> = others.filter(|change| !waits(&change.setting)).map(Step::from).collect();
        if !known.is_empty() {
            let then = with_new_queues(&planned.host, &planned.changes, &known);
            let Desired { settings, mut reasons, .. } = plan::plan(profile, &then)?;
            for (setting, after) in settings {
                if is_made_anew(&planned.host, &known, &setting) {
                    let why = reasons.remove(&setting).unwrap_or_default();
                    planned.desired.reasons.insert(setting.clone(), why);
                    rest.push(Step { setting, before: None, after });
                }
            }
        }
        rest.sort_by(|one, other| one.setting.cmp(&other.setting));
        steps.append(&mut rest);
        Ok(Self { planned, steps, overwritten, again })
    }
}

impl From<&Change> for Step {
    fn from(change: &Change) -> Self {
        Self {
            setting: change.setting.clone(),
            before: Some(change.before.clone()),
            after: change.after.clone(),
        }
    }
}

/// Takes out tables of which ethtool could not make the old one again.
fn skip_tables(planned: &mut Planned) {
    let tables = planned
        .changes
        .extract_if(.., |change| is_table(&change.setting) && !ethtool_can_make(&change.before.to_string()));
    for change in tables {
        let interface = change.setting.interface().map(|name| name.to_string()).unwrap_or_default();
        planned.desired.settings.remove(&change.setting);
        planned.desired.reasons.remove(&change.setting);
        planned.desired.skipped.push(Skipped {
            wish: change.setting.path(),
            reason: format!(
                "ethtool has no arguments for the table of now, so that it could not be put back; \
                 \"ethtool -X {interface} {}\" sets the new one",
                change.after
            ),
        });
    }
}

/// The interfaces whose queues the driver makes anew.
fn overwritten_interfaces(planned: &Planned) -> BTreeSet<InterfaceName> {
    let rebuilds =
        |change: &&Change| matches!(&change.setting, Setting::Ethtool(_, knob) if knob.rebuilds_queues());
    planned.changes.iter().filter(rebuilds).filter_map(|change| change.setting.interface()).collect()
}

/// True if it is one of a queue or an interrupt of these interfaces.
fn is_made_anew(host: &Host, interfaces: &BTreeSet<InterfaceName>, setting: &Setting) -> bool {
    match setting {
        Setting::Ethtool(..) | Setting::Napi(..) | Setting::Sysctl(_) => false,
        Setting::IrqAffinity(irq) => {
            host.nics.iter().any(|on| interfaces.contains(&on.nic.name) && on.irqs.contains_key(irq))
        }
        _ => setting.interface().is_some_and(|name| interfaces.contains(&name)),
    }
}

/// The host as it is when the planned channels of these interfaces are set.
fn with_new_queues(host: &Host, changes: &[Change], interfaces: &BTreeSet<InterfaceName>) -> Host {
    let mut host = host.clone();
    for on in host.nics.iter_mut().filter(|on| interfaces.contains(&on.nic.name)) {
        let channels = Setting::Ethtool(on.nic.name.clone(), Knob::Channels);
        let Some(change) = changes.iter().find(|change| change.setting == channels) else { continue };
        if on.ethtool.set(Knob::Channels, &change.after.to_string()).is_ok()
            && let Some(channels) = on.ethtool.channels
        {
            on.resize(channels.rx_queues(), channels.tx_queues());
            fill(on);
        }
    }
    host
}

/// Gives new queues the files that their kind has; what they hold is not known and stands for nothing.
fn fill(on: &mut NicHost) {
    let many = on.nic.tx_queues.len() > 1;
    let has_rxqs = on.nic.tx_queues.iter().any(|queue| queue.xps_rxqs.is_some());
    for queue in &mut on.nic.tx_queues {
        queue.xps_cpus = many.then(|| queue.xps_cpus.take().unwrap_or_default());
        queue.xps_rxqs = has_rxqs.then(|| queue.xps_rxqs.take().unwrap_or_default());
    }
    let has_rps = on.nic.rx_queues.iter().any(|queue| queue.rps_cpus.is_some());
    let has_flows = on.nic.rx_queues.iter().any(|queue| queue.rps_flow_cnt.is_some());
    for queue in &mut on.nic.rx_queues {
        queue.rps_cpus = has_rps.then(|| queue.rps_cpus.take().unwrap_or_default());
        queue.rps_flow_cnt = has_flows.then(|| queue.rps_flow_cnt.unwrap_or_default());
    }
}
