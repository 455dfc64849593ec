//! The server's sockets as the kernel sees them (`/proc/net/tcp` and `udp`, proc_net_tcp(5)).
//!
//! The file is read in pieces: while other programs open and close sockets a row may be missed or come twice.
//! So wait for a count, do not take the first one for true.

use std::collections::HashSet;
use std::fs;

const LISTEN: u8 = 0x0a;
const FIN_WAIT1: u8 = 0x04;
const PROBE: u8 = 4;

struct Row {
    local_port: u16,
    state: u8,
    /// Of a connection: bytes sent that the other end has not acknowledged.
    tx_queue: u32,
    /// Of a connection: what is waited for (`tr`), and how often it was sent again in vain meanwhile.
    timer: u8,
    retransmits: u32,
    /// Of a listener: connections that nobody has accepted yet. Of a UDP socket: memory of what waits there.
    rx_queue: u32,
    /// 0 when no process holds the socket: not yet accepted, or closed already.
    inode: u64,
}

/// True if no connection to `port` is held or waits to be accepted. One reading: the kernel lists the
/// listeners first, so a connection that is accepted meanwhile is still seen.
pub(crate) fn all_closed(port: u16) -> bool {
    let counts =
        |row: &Row| row.local_port == port && (is_held(row) || row.state == LISTEN && row.rx_queue > 0);
    !rows().iter().any(counts)
}

/// Connections to `port` that a process has accepted and not closed.
pub(crate) fn held(port: u16) -> usize {
    let rows = rows();
    let held = rows.iter().filter(|row| row.local_port == port && is_held(row));
    held.map(|row| row.inode).collect::<HashSet<_>>().len()
}

/// True if the server has acknowledged all that the client on `port` has sent. A row that is missed is no
/// sign.
pub(crate) fn all_acknowledged(port: u16) -> bool {
    rows().iter().any(|row| row.local_port == port && is_held(row) && row.tx_queue == 0)
}

/// Bytes that the server has sent to its clients and that these have not acknowledged.
pub(crate) fn unacknowledged(port: u16) -> u32 {
    rows().iter().filter(|row| row.local_port == port && is_held(row)).map(|row| row.tx_queue).sum()
}

/// True if a client of `port` has no room: the kernel has nothing on its way to it and probes (`tr` 4), or
/// what it sent beyond its room is dropped each time.
pub(crate) fn without_room(port: u16) -> bool {
    let has_none = |row: &Row| row.timer == PROBE || row.retransmits > 1;
    rows().iter().any(|row| row.local_port == port && is_held(row) && has_none(row))
}

/// Connections to `port` that the server has ended with a FIN which the client has not acknowledged.
pub(crate) fn ended_unacknowledged(port: u16) -> usize {
    rows().iter().filter(|row| row.local_port == port && row.state == FIN_WAIT1 && is_held(row)).count()
}

/// Connections to `port` that wait in the accept queues of its listeners.
pub(crate) fn waiting(port: u16) -> u32 {
    let listeners = rows().into_iter().filter(|row| row.local_port == port && row.state == LISTEN);
    listeners.map(|row| row.rx_queue).sum()
}

/// True if no datagram waits in the UDP sockets of `port`.
pub(crate) fn all_taken(port: u16) -> bool {
    rows_of("/proc/net/udp").iter().all(|row| row.local_port != port || row.rx_queue == 0)
}

fn is_held(row: &Row) -> bool {
    row.state != LISTEN && row.inode != 0
}

fn rows() -> Vec<Row> {
    rows_of("/proc/net/tcp")
}

fn rows_of(path: &str) -> Vec<Row> {
    let table = fs::read_to_string(path).unwrap_or_else(|error| panic!("read {path}: {error}"));
    table.lines().skip(1).map(|line| row(line).unwrap_or_else(|| panic!("{path}: {line}"))).collect()
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …`
fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = fields.get(1)?.split_once(':')?;
    let (tx_queue, rx_queue) = fields.get(4)?.split_once(':')?;
    let (timer, _) = fields.get(5)?.split_once(':')?;
    Some(Row {
        local_port: u16::from_str_radix(port, 16).ok()?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        tx_queue: u32::from_str_radix(tx_queue, 16).ok()?,
        timer: u8::from_str_radix(timer, 16).ok()?,
        retransmits: u32::from_str_radix(fields.get(6)?, 16).ok()?,
        rx_queue: u32::from_str_radix(rx_queue, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}
