//! `ioctl(SIOCETHTOOL)`: the RSS table and the fields that are hashed.
//!
//! By netlink the kernel tells the table since Linux 6.3 and sets it since 6.17; by ioctl it does both since
//! 3.17, and a table of any length, where the buffer of netlink-socket2 ends a message at 8 KiB (a table of
//! 4096 entries has 16). No well-kept crate has this ioctl, so the one system call stands here: rustix and
//! nix would take an unsafe block for it, too.
//!
//! What goes to and fro is `struct ethtool_rxfh` and the head of `struct ethtool_rxnfc`
//! (`include/uapi/linux/ethtool.h`), both as 32-bit words.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::host::InterfaceName;

const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_SRXFH: u32 = 0x2a;
const ETHTOOL_GRSSH: u32 = 0x46;
const ETHTOOL_SRSSH: u32 = 0x47;

/// Words before the table in `struct ethtool_rxfh`: command, context, entries of the table, bytes of the key,
/// two bytes for function and transformation, and a reserved one.
const RXFH_HEAD: usize = 6;

/// RSS of an interface, without the contexts that filters may send packets to.
#[derive(Debug)]
pub(super) struct Rxfh {
    /// The indirection table.
    pub(super) table: Vec<u32>,
    /// The hash key.
    pub(super) key: Vec<u8>,
    /// The hash functions in use, a bit each.
    pub(super) function: u8,
    /// What is done to the fields before they are hashed; 0 before Linux 6.8, which does not say.
    pub(super) input_xfrm: u8,
}

/// Reads it: first the sizes, then the rest.
///
/// # Errors
/// EOPNOTSUPP if the driver has none of it, and the others of the driver.
pub(super) fn rxfh(interface: &InterfaceName) -> io::Result<Rxfh> {
    let mut sizes = [ETHTOOL_GRSSH, 0, 0, 0, 0, 0];
    ethtool(interface, &mut sizes)?;
    let (entries, key_bytes) = (sizes[2] as usize, sizes[3] as usize);
    let mut words = vec![ETHTOOL_GRSSH, 0, sizes[2], sizes[3], 0, 0];
    words.resize(RXFH_HEAD + entries + key_bytes.div_ceil(4), 0);
    ethtool(interface, &mut words)?;
    Ok(Rxfh::of(&words, entries, key_bytes))
}

impl Rxfh {
    /// Of the words of a `struct ethtool_rxfh` with a table of so many entries and a key of so many bytes.
    fn of(words: &[u32], entries: usize, key_bytes: usize) -> Self {
        let (head, rest) = words.split_at(RXFH_HEAD);
        let (table, key) = rest.split_at(entries);
        let [function, input_xfrm, ..] = head[4].to_ne_bytes();
        let key = key.iter().flat_map(|word| word.to_ne_bytes()).take(key_bytes).collect();
        Self { table: table.to_vec(), key, function, input_xfrm }
    }
}

/// Sets the table, or has the kernel fill it anew (`None`): with all RX queues in turn, and no longer as one
/// that somebody has set (`IFF_RXFH_CONFIGURED`). Key and function stay, and `input_xfrm`, as it was read,
/// too: there is a value for "as it is", which kernels before 6.8 refuse, and 0 would switch it off.
///
/// # Errors
/// EINVAL if the table has another length or names a queue that is not there, EOPNOTSUPP if the driver cannot
/// set it.
pub(super) fn set_table(interface: &InterfaceName, table: Option<&[u32]>, input_xfrm: u8) -> io::Result<()> {
    let table = table.unwrap_or_default();
    let entries = u32::try_from(table.len()).map_err(io::Error::other)?;
    let mut words = vec![ETHTOOL_SRSSH, 0, entries, 0, u32::from_ne_bytes([0, input_xfrm, 0, 0]), 0];
    words.extend_from_slice(table);
    ethtool(interface, &mut words)
}

/// The fields of a kind of flow that are hashed, as bits (`RXH_*`); the kind is a number of `ethtool.h`
/// (`TCP_V4_FLOW`).
///
/// # Errors
/// EOPNOTSUPP or EINVAL if the driver does not say.
pub(super) fn hashed_fields(interface: &InterfaceName, flow: u32) -> io::Result<u64> {
    let mut words = [ETHTOOL_GRXFH, flow, 0, 0];
    ethtool(interface, &mut words)?;
    let [_, _, first, second] = words.map(u32::to_ne_bytes);
    let mut bits = [0; 8];
    bits.iter_mut().zip(first.into_iter().chain(second)).for_each(|(to, from)| *to = from);
    Ok(u64::from_ne_bytes(bits))
}

/// Sets them.
///
/// # Errors
/// EOPNOTSUPP or EINVAL if the driver does not hash these.
pub(super) fn set_hashed_fields(interface: &InterfaceName, flow: u32, fields: u64) -> io::Result<()> {
    let [a, b, c, d, e, f, g, h] = fields.to_ne_bytes();
    let (first, second) = (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]));
    ethtool(interface, &mut [ETHTOOL_SRXFH, flow, first, second])
}

/// Asks with these words, and leaves the answer in them.
///
/// Private, since it is only safe with words that are as long as their command says: see the callers above,
/// each of which gives a struct's whole head and behind it what the sizes in the head count.
fn ethtool(interface: &InterfaceName, words: &mut [u32]) -> io::Result<()> {
    // Any socket does; it stands for the network namespace.
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays 0: an `InterfaceName` has 15 at most.
    for (to, from) in name.iter_mut().zip(interface.as_str().as_bytes().iter().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed() as libc::c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: words.as_mut_ptr().cast() };
    let mut request = libc::ifreq { ifr_name: name, ifr_ifru };
    // SAFETY: `request` and `words` live until the call returns. The kernel reads and writes behind
    // `ifru_data` the head of the command's struct and as many entries and bytes of key as the head counts,
    // which is what `words` holds: it refuses a count that is not the driver's (EINVAL), and an answer is
    // never longer than its question.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_any_length_and_a_key_of_any_are_taken_apart() {
        for (entries, key_bytes) in [(0u32, 40usize), (128, 0), (128, 52), (4096, 40), (2048, 41)] {
            let mut words = vec![ETHTOOL_GRSSH, 0, entries, 0, u32::from_ne_bytes([1, 2, 0, 0]), 0];
            words.extend(0..entries);
            words.extend(vec![u32::from_ne_bytes([7, 8, 9, 10]); key_bytes.div_ceil(4)]);
            let Rxfh { table, key, function, input_xfrm } = Rxfh::of(&words, entries as usize, key_bytes);
            assert_eq!((table.len(), table.last().copied()), (entries as usize, entries.checked_sub(1)));
            assert_eq!((key.len(), function, input_xfrm), (key_bytes, 1, 2));
            assert!(key.iter().zip([7, 8, 9, 10].iter().cycle()).all(|(found, expected)| found == expected));
        }
    }
}
