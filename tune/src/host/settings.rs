//! All settings of a host, for comparing two of them. Pure.

use std::collections::BTreeMap;

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
        let napi = NapiFile::ALL.map(|file| Setting::Napi(name.clone(), file));
        let threads = self.netdev.napis.iter().map(|napi| Setting::NapiThread(name.clone(), napi.id));
        napi.into_iter().chain(irqs).chain(threads).chain(tx).chain(rx).collect()
    }
}
