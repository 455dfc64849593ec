//! Link events of rtnetlink: an interface went down, came up, was deleted or made.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use netlink_bindings::rt_link::{IfinfoFlags, OpNewlinkDo};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// `RTMGRP_LINK`, `RTM_NEWLINK` and `RTM_DELLINK` of `include/uapi/linux/rtnetlink.h`.
const GROUP_LINK: u32 = 1;
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// What became of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LinkEvent {
    /// `ifindex`.
    pub(super) index: i32,
    /// Its name.
    pub(super) name: String,
    /// What it is now.
    pub(super) state: LinkState,
}

/// The state of an interface as far as it matters to its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    /// Administratively up.
    Up,
    /// Administratively down.
    Down,
    /// It is not there any more.
    Deleted,
}

/// A socket that hears of every change of a link in this process's network namespace.
pub(super) struct LinkEvents(OwnedFd);

impl AsFd for LinkEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl LinkEvents {
    /// Opens it.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is 0, which is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUP_LINK))?;
        Ok(Self(socket))
    }

    /// What has been heard since; `None` if some of it was lost.
    ///
    /// # Errors
    /// As the kernel gives them.
    pub(super) fn drain(&self) -> io::Result<Option<Vec<LinkEvent>>> {
        let mut buffer = vec![0; 1 << 16];
        let (mut events, mut complete) = (Vec::new(), true);
        loop {
            match rustix::io::read(&self.0, &mut buffer) {
                Ok(length) => events.extend(parse(&buffer[..length])),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => complete = false,
                Err(Errno::WOULDBLOCK) => return Ok(complete.then_some(events)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// The link events of one datagram; what is no such message, or cut short, is left out.
fn parse(mut datagram: &[u8]) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    while let Some(header) = datagram.first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let Some(payload) = datagram.get(HEADER..length) else { break };
        if matches!(kind, NEW_LINK | DELETE_LINK) {
            let (link, attributes) = OpNewlinkDo::decode_request(payload);
            if let Ok(name) = attributes.get_ifname() {
                let is_up = link.ifi_flags & IfinfoFlags::Up as u32 != 0;
                let state = match (kind, is_up) {
                    (DELETE_LINK, _) => LinkState::Deleted,
                    (_, true) => LinkState::Up,
                    (_, false) => LinkState::Down,
                };
                events.push(LinkEvent {
                    index: link.ifi_index,
                    name: name.to_string_lossy().into_owned(),
                    state,
                });
            }
        }
        // Messages are aligned to 4 bytes.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    events
}

#[cfg(test)]
mod tests {
    use netlink_bindings::rt_link::Ifinfomsg;
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, index: i32, flags: u32, name: &std::ffi::CStr) -> Vec<u8> {
        let mut payload = Vec::new();
        let link = Ifinfomsg { ifi_index: index, ifi_flags: flags, ..Ifinfomsg::new() };
        OpNewlinkDo::encode_request(&mut payload, &link).push_ifname(name);
        let mut message = u32::try_from(HEADER + payload.len()).unwrap().to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(payload);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn every_message_of_a_datagram_is_read() {
        let up = IfinfoFlags::Up as u32;
        let datagram = [
            message(NEW_LINK, 7, up, c"nic0"),
            message(24, 7, up, c"route"),
            message(NEW_LINK, 8, 0, c"a"),
            message(DELETE_LINK, 7, up, c"nic0"),
        ]
        .concat();
        let event = |index, name: &str, state| LinkEvent { index, name: name.into(), state };
        assert_eq!(
            parse(&datagram),
            [
                event(7, "nic0", LinkState::Up),
                event(8, "a", LinkState::Down),
                event(7, "nic0", LinkState::Deleted)
            ]
        );
        assert_eq!(parse(&datagram[..datagram.len() - 8]).len(), 2, "the last one is cut short");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256), length in 0u32..300, kind in 15u16..19) {
            let _ = parse(&bytes);
            let mut message = length.to_ne_bytes().to_vec();
            message.extend(kind.to_ne_bytes());
            message.extend([0; 10]);
            message.extend(&bytes);
            let _ = parse(&message);
        }
    }
}
