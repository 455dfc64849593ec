//! All settings of a host, for comparing two of them. Pure.

use std::collections::BTreeMap;

use super::ethtool::Knob;
use super::{Host, NapiFile, NicHost};
use crate::setting::{Setting, Value};

impl Host {
    /// What every setting holds that this snapshot has.
    #[must_use]
    pub fn settings(&self) -> BTreeMap<Setting, Value> {
        let of_nics = self.nics.iter().flat_map(NicHost::possible_settings);
        let governors = self.governors.keys().map(|cpu| Setting::Governor(*cpu));
        let sysctls = self.sysctls.keys().map(|name| Setting::Sysctl(name.clone()));
        let of_host = [Setting::IrqbalanceBan, Setting::RpsDefaultMask];
        let all = of_nics.chain(of_host).chain(governors).chain(sysctls);
        all.filter_map(|setting| Some((setting.clone(), self.value(&setting)?))).collect()
    }
}

impl NicHost {
    /// What there is of queues and interrupts that a driver may reset when it makes its queues anew, and the
    /// RSS table, which is given back to it where it is in the way of fewer channels.
    pub(crate) fn queue_settings(&self) -> Vec<Setting> {
        let of_queue = |setting: &Setting| {
            matches!(
                setting,
                Setting::IrqAffinity(_)
                    | Setting::NapiThread(..)
                    | Setting::XpsCpus(..)
                    | Setting::XpsRxqs(..)
                    | Setting::RpsCpus(..)
                    | Setting::RpsFlowCount(..)
                    | Setting::Ethtool(_, Knob::Rss)
            )
        };
        let all = self.possible_settings().into_iter();
        all.filter(|setting| of_queue(setting) && self.value(setting).is_some()).collect()
    }

    /// The settings of one interface, also those that its kernel or driver does not have.
    fn possible_settings(&self) -> Vec<Setting> {
        let name = &self.nic.name;
        let irqs = self.irqs.keys().map(|irq| Setting::IrqAffinity(*irq));
        let tx = self.nic.tx_queues.iter().flat_map(|queue| {
            [Setting::XpsCpus(name.clone(), queue.index), Setting::XpsRxqs(name.clone(), queue.index)]
        });
        let rx = self.nic.rx_queues.iter().flat_map(|queue| {
            [Setting::RpsCpus(name.clone(), queue.index), Setting::RpsFlowCount(name.clone(), queue.index)]
        });
        let ethtool = Knob::all().map(|knob| Setting::Ethtool(name.clone(), knob));
        let napi = NapiFile::ALL.map(|file| Setting::Napi(name.clone(), file));
        let threads = self.netdev.napis.iter().map(|napi| Setting::NapiThread(name.clone(), napi.id));
        ethtool.chain(napi).chain(irqs).chain(threads).chain(tx).chain(rx).collect()
    }
}
