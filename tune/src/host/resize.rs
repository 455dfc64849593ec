//! What a snapshot will look like with another number of queues. Pure.

use super::{Direction, NicHost, QueueIndex, RxQueue, Serves, TxQueue};

impl NicHost {
    /// Leaves the first RX and TX queues, and the interrupts and NAPI instances of those alone, or adds
    /// queues of which nothing is known.
    pub(crate) fn resize(&mut self, rx: u32, tx: u32) {
        let (rx_queues, tx_queues) = (&mut self.nic.rx_queues, &mut self.nic.tx_queues);
        rx_queues.retain(|queue| queue.index.0 < rx);
        tx_queues.retain(|queue| queue.index.0 < tx);
        let (rx_new, tx_new) = (
            next_index(rx_queues.last().map(|queue| queue.index)),
            next_index(tx_queues.last().map(|queue| queue.index)),
        );
        rx_queues.extend((rx_new..rx).map(|index| RxQueue {
            index: QueueIndex(index),
            rps_cpus: None,
            rps_flow_cnt: None,
        }));
        tx_queues.extend((tx_new..tx).map(|index| TxQueue {
            index: QueueIndex(index),
            xps_cpus: None,
            xps_rxqs: None,
        }));
        self.queue_irqs.rows.retain(|row| match row.serves {
            Serves::Both(queue) => queue.0 < rx.max(tx),
            Serves::Rx(queue) => queue.0 < rx,
            Serves::Tx(queue) => queue.0 < tx,
            Serves::All => true,
        });
        self.leave_napis(rx, tx);
    }

    fn leave_napis(&mut self, rx: u32, tx: u32) {
        let (gone, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.netdev.queues).into_iter().partition(|queue| match queue.direction {
                Direction::Rx => queue.index.0 >= rx,
                Direction::Tx => queue.index.0 >= tx,
            });
        let left_has = |id| left.iter().any(|queue| queue.napi == Some(id));
        self.netdev
            .napis
            .retain(|napi| left_has(napi.id) || !gone.iter().any(|queue| queue.napi == Some(napi.id)));
        self.netdev.queues = left;
    }
}

fn next_index(last: Option<QueueIndex>) -> u32 {
    last.map_or(0, |last| last.0 + 1)
}
