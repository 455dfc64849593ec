//! A made-up host for unit tests.

use std::collections::BTreeMap;

use super::nic::Device;
use super::{
    CpuPlace, Ethtool, Host, HowKnown, Irq, IrqState, Netdev, Nic, NicHost, QueueIndex, QueueIrq, QueueIrqs,
    RxQueue, Serves, Topology, TxQueue,
};
use crate::cpu_set::CpuSet;
use crate::irqbalance::Irqbalance;
use crate::setting::Value;

/// `cpus` CPUs on one node, `eth0` with `queues` combined queues on IRQ 40 and up, everything untouched.
pub(crate) fn nic_host(cpus: u32, queues: u32) -> Host {
    let mut host = veth_host(cpus, queues);
    let on = &mut host.nics[0];
    on.nic.device = Some(Device {
        path: "/sys/devices/pci0000:3a/0000:3b:00.0".into(),
        parent: "/sys/devices/pci0000:3a".into(),
        driver: Some("ixgbe".into()),
        pci: Some("0000:3b:00.0".parse().unwrap()),
    });
    for queue in 0..queues {
        let irq = Irq(40 + queue);
        on.queue_irqs.rows.push(QueueIrq {
            irq,
            name: format!("eth0-TxRx-{queue}"),
            serves: Serves::Both(QueueIndex(queue)),
            how: HowKnown::MsiIrqs,
        });
        let affinity = host.topology.online.clone();
        let effective = Some(CpuSet::from_iter([queue % cpus]));
        on.irqs.insert(irq, IrqState { affinity, effective, node: None, managed: false });
    }
    host
}

/// As [`nic_host`], without a device and without interrupts.
pub(crate) fn veth_host(cpus: u32, queues: u32) -> Host {
    let online: CpuSet = (0..cpus).collect();
    let place = |cpu| CpuPlace { cpu, node: Some(0), core: cpu, thread: 0, llc: 0 };
    let rx =
        |index| RxQueue { index: QueueIndex(index), rps_cpus: Some(CpuSet::new()), rps_flow_cnt: Some(0) };
    let tx = |index| TxQueue {
        index: QueueIndex(index),
        xps_cpus: (queues > 1).then(CpuSet::new),
        xps_rxqs: None,
    };
    Host {
        topology: Topology {
            housekeeping: online.clone(),
            cpus: online.iter().map(place).collect(),
            online,
            distances: BTreeMap::from([(0, vec![10])]),
            ..Topology::default()
        },
        nics: vec![NicHost {
            nic: Nic {
                name: "eth0".parse().unwrap(),
                device: None,
                lower: None,
                paravirtual: None,
                numa_node: None,
                speed: None,
                napi: BTreeMap::new(),
                rx_queues: (0..queues).map(rx).collect(),
                tx_queues: (0..queues).map(tx).collect(),
            },
            ethtool: Ethtool::default(),
            netdev: Netdev::default(),
            queue_irqs: QueueIrqs::default(),
            irqs: BTreeMap::new(),
            sriov: super::Sriov::default(),
        }],
        governors: BTreeMap::new(),
        irqbalance: Irqbalance::Absent,
        sysctls: BTreeMap::from([("net.core.somaxconn".parse().unwrap(), Value::Numbers(vec![4096]))]),
        rps_default_mask: None,
    }
}

/// `eth0` of this driver on the PCI function 0000:3b:00.0, or on its child `device`.
pub(crate) fn device_nic(driver: &str, device: &str, rx: u32, tx: u32) -> Nic {
    let parent = "/sys/devices/pci0000:3a/0000:3b:00.0";
    Nic {
        name: "eth0".parse().unwrap(),
        device: Some(Device {
            path: if device.starts_with("virtio") { format!("{parent}/{device}") } else { parent.into() },
            parent: parent.into(),
            driver: Some(driver.into()),
            pci: Some("0000:3b:00.0".parse().unwrap()),
        }),
        lower: None,
        paravirtual: None,
        numa_node: None,
        speed: None,
        napi: BTreeMap::new(),
        rx_queues: (0..rx)
            .map(|index| RxQueue { index: QueueIndex(index), rps_cpus: None, rps_flow_cnt: None })
            .collect(),
        tx_queues: (0..tx)
            .map(|index| TxQueue { index: QueueIndex(index), xps_cpus: None, xps_rxqs: None })
            .collect(),
    }
}
