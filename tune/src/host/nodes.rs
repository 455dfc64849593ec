//! The NUMA node of each queue. Pure.
//!
//! One interface may stand on several PCI functions in different sockets (mlx5, multi-pf-netdev.rst). sysfs
//! shows one of them as its device; the names of its interrupts (`mlx5_comp0@pci:0000:88:00.0`) and their
//! nodes (`/proc/irq/N/node`, the node of the function) tell of the others.

use std::collections::BTreeSet;

use super::{CpuPlace, Direction, NicHost, PciAddress, QueueIrq, Topology};
use crate::cpu_set::CpuSet;

impl NicHost {
    /// The nodes of its PCI functions; empty where the kernel knows none.
    #[must_use]
    pub fn numa_nodes(&self) -> BTreeSet<u32> {
        let device = self.nic.device.as_ref().and_then(|device| device.pci.as_ref());
        let rows = &self.queue_irqs.rows;
        if rows.iter().any(|row| function(row).is_some_and(|own| Some(&own) != device)) {
            let nodes: BTreeSet<u32> = rows.iter().filter_map(|row| self.irqs.get(&row.irq)?.node).collect();
            if !nodes.is_empty() {
                return nodes;
            }
        }
        self.nic.numa_node.into_iter().collect()
    }

    /// The CPUs of its nodes; none where no node is known, or those have no CPU.
    #[must_use]
    pub fn near_cpus(&self, topology: &Topology) -> CpuSet {
        let near = self.numa_nodes();
        let is_near = |place: &&CpuPlace| place.node.is_some_and(|node| near.contains(&node));
        topology.cpus.iter().filter(is_near).map(|place| place.cpu).collect()
    }

    /// The node of each queue of a direction, in their order.
    #[must_use]
    pub fn queue_nodes(&self, direction: Direction) -> Vec<Option<u32>> {
        let indexes: Vec<_> = match direction {
            Direction::Rx => self.nic.rx_queues.iter().map(|queue| queue.index).collect(),
            Direction::Tx => self.nic.tx_queues.iter().map(|queue| queue.index).collect(),
        };
        let several = self.numa_nodes().len() > 1;
        let own = |queue| self.irqs.get(&self.queue_irqs.of(direction, queue)?.irq)?.node;
        let node = |queue| if several { own(queue).or(self.nic.numa_node) } else { self.nic.numa_node };
        indexes.into_iter().map(node).collect()
    }
}

/// The PCI function in the name of an interrupt.
fn function(row: &QueueIrq) -> Option<PciAddress> {
    row.name.rsplit_once("@pci:")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::nic_host;
    use super::*;

    #[test]
    fn queues_on_a_second_function_have_its_node() {
        let mut host = nic_host(4, 4);
        let on = &mut host.nics[0];
        on.nic.numa_node = Some(0);
        for (queue, row) in on.queue_irqs.rows.iter_mut().enumerate() {
            on.irqs.get_mut(&row.irq).unwrap().node = Some(u32::try_from(queue % 2).unwrap());
        }
        assert_eq!(on.numa_nodes(), BTreeSet::from([0]), "of one function the device's node counts");
        assert_eq!(on.queue_nodes(Direction::Rx), [Some(0); 4]);
        for (queue, row) in on.queue_irqs.rows.iter_mut().enumerate() {
            row.name = format!("mlx5_comp{}@pci:0000:{}b:00.0", queue / 2, 3 + queue % 2);
        }
        assert_eq!(on.numa_nodes(), BTreeSet::from([0, 1]));
        assert_eq!(on.queue_nodes(Direction::Tx), [Some(0), Some(1), Some(0), Some(1)]);
        on.irqs.values_mut().for_each(|state| state.node = None);
        assert_eq!(on.queue_nodes(Direction::Rx), [Some(0); 4], "what is not known is the device's");
    }
}
