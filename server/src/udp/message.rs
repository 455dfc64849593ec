//! What a multishot `recvmsg` writes into a buffer, and the control messages of the answer. Pure.
//!
//! ```text
//! 0                  16          48               112
//! io_uring_recvmsg_out | peer's name | control messages | payload …
//! ```
//!
//! Sources: `struct io_uring_recvmsg_out` of `linux/io_uring.h`, `io_recvmsg_multishot` in the kernel's
//! `io_uring/net.c`, `cmsg(3)`, `ip(7)`, `ipv6(7)`, `udp(7)`.

use std::num::NonZeroU16;
use std::ops::Range;

/// Bytes kept for the peer's name: a `sockaddr_in6` has 28.
pub(super) const NAME_ROOM: usize = 32;

/// Bytes kept for control messages: `IPV6_PKTINFO` takes 40 of them, `UDP_GRO` 24.
pub(super) const CONTROL_ROOM: usize = 64;

/// Bytes of a buffer before the payload.
pub(crate) const HEAD: usize = OUT + NAME_ROOM + CONTROL_ROOM;

/// Where the peer's name is in a buffer.
pub(super) const NAME_AT: usize = OUT;

/// The longest payload of a datagram: the 16-bit length of a UDP header, less its 8 bytes. IPv4 carries 20
/// bytes less.
pub(super) const LARGEST_PAYLOAD: u32 = 65_527;

/// `struct io_uring_recvmsg_out`: the lengths of name, control messages and payload, and the flags.
const OUT: usize = 16;

/// Level and type of control messages.
const IP_PKTINFO: (i32, i32) = (0, 8);
const IPV6_PKTINFO: (i32, i32) = (41, 50);
pub(super) const UDP_SEGMENT: (i32, i32) = (17, 103);
pub(super) const UDP_GRO: (i32, i32) = (17, 104);

/// Flags of a received message: something was cut off, of its payload or of its control messages.
const MSG_TRUNC: u32 = 0x20;
const MSG_CTRUNC: u32 = 0x08;

/// A control message's length, level and type: `struct cmsghdr`.
const CMSG_HEADER: usize = size_of::<usize>() + 8;

/// The address that a datagram was sent to, which the answer has to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalAddress {
    V4([u8; 4]),
    V6 { address: [u8; 16], interface: u32 },
}

impl LocalAddress {
    /// True if an answer can come from this address: nothing comes from a group of receivers.
    fn is_a_source(self) -> bool {
        match self {
            Self::V4(address) => !is_for_many(address),
            Self::V6 { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], .. } => {
                !is_for_many([a, b, c, d])
            }
            Self::V6 { address, .. } => address[0] != 0xff,
        }
    }
}

/// Multicast, or the broadcast of the local network.
fn is_for_many(v4: [u8; 4]) -> bool {
    (224..240).contains(&v4[0]) || v4 == [255; 4]
}

/// A received message: one datagram, or several of one peer that the kernel has put together (GRO).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// Bytes of the peer's name, at [`NAME_AT`].
    pub(super) name_length: usize,
    /// The peer's port.
    pub(super) port: u16,
    /// Bytes of the payload, at [`HEAD`].
    pub(super) payload: usize,
    /// Bytes that it had before it was cut off, if it was.
    full_payload: usize,
    /// Something was cut off.
    pub(super) is_truncated: bool,
    /// Where it was sent to, if the socket was asked to tell.
    pub(super) to: Option<LocalAddress>,
    /// Bytes of each datagram but the last, which may be shorter; `None` if it is one datagram.
    pub(super) segment: Option<NonZeroU16>,
}

impl Message {
    /// Reads what a completion says is in a buffer. `None` if that is no message that a kernel would write.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let payload = bytes.len().checked_sub(HEAD)?;
        let [name_length, control_length, full_payload, flags] =
            std::array::from_fn(|field| word(bytes, field * 4));
        let [name_length, control_length, full_payload] =
            [name_length, control_length, full_payload].map(|length| length as usize);
        if !(4..=NAME_ROOM).contains(&name_length) || control_length > CONTROL_ROOM || full_payload < payload
        {
            return None;
        }
        let control_at = NAME_AT + NAME_ROOM;
        let (to, segment) = ancillary(&bytes[control_at..control_at + control_length]);
        Some(Self {
            name_length,
            port: u16::from_be_bytes([bytes[NAME_AT + 2], bytes[NAME_AT + 3]]),
            payload,
            full_payload,
            is_truncated: flags & (MSG_TRUNC | MSG_CTRUNC) != 0 || full_payload > payload,
            to,
            segment: segment.filter(|segment| usize::from(segment.get()) < full_payload),
        })
    }

    /// How many datagrams the peer sent.
    pub(super) fn datagrams(&self) -> u64 {
        self.segment.map_or(1, |segment| self.full_payload.div_ceil(usize::from(segment.get())) as u64)
    }

    /// Where the payload of each datagram is in the buffer.
    pub(super) fn segments(&self) -> impl Iterator<Item = Range<usize>> {
        let end = HEAD + self.payload;
        let step = self.segment.map_or(self.payload.max(1), |segment| usize::from(segment.get()));
        // An empty datagram is a datagram.
        let last = if self.payload == 0 { HEAD + 1 } else { end };
        (HEAD..last).step_by(step).map(move |start| start..end.min(start + step))
    }

    /// The control messages of the answer: which address it comes from and, if `in_segments`, into how long
    /// datagrams the kernel is to cut it (GSO).
    pub(super) fn answer(&self, in_segments: bool) -> Control {
        let mut control = Control { bytes: [0; CONTROL_ROOM], length: 0 };
        match self.to.filter(|to| to.is_a_source()) {
            Some(LocalAddress::V4(source)) => {
                // struct in_pktinfo: interface, source, and what is for received messages only.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&source);
                control.push(IP_PKTINFO, &info);
            }
            Some(LocalAddress::V6 { address, interface }) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&address);
                // Only a link-local address needs its interface; others are left to the routing table.
                let is_link_local = address[0] == 0xfe && address[1] & 0xc0 == 0x80;
                info[16..].copy_from_slice(&if is_link_local { interface } else { 0 }.to_ne_bytes());
                control.push(IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if let Some(segment) = self.segment.filter(|_| in_segments) {
            control.push(UDP_SEGMENT, &segment.get().to_ne_bytes());
        }
        control
    }
}

/// Control messages, one after the other, as `msg_control` takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Control {
    pub(super) bytes: [u8; CONTROL_ROOM],
    pub(super) length: usize,
}

impl Control {
    fn push(&mut self, (level, kind): (i32, i32), data: &[u8]) {
        let used = CMSG_HEADER + data.len();
        let message = &mut self.bytes[self.length..self.length + aligned(used)];
        let (length, rest) = message.split_at_mut(size_of::<usize>());
        length.copy_from_slice(&used.to_ne_bytes());
        rest[..4].copy_from_slice(&level.to_ne_bytes());
        rest[4..8].copy_from_slice(&kind.to_ne_bytes());
        rest[8..8 + data.len()].copy_from_slice(data);
        self.length += aligned(used);
    }
}

/// `CMSG_ALIGN`
fn aligned(length: usize) -> usize {
    length.next_multiple_of(size_of::<usize>())
}

/// Walks through control messages; what is not known, or not whole, is passed over.
fn ancillary(mut control: &[u8]) -> (Option<LocalAddress>, Option<NonZeroU16>) {
    let (mut to, mut segment) = (None, None);
    while let Some((header, _)) = control.split_at_checked(CMSG_HEADER) {
        let (length, kind) = header.split_at(size_of::<usize>());
        let length = usize::from_ne_bytes(length.try_into().expect("split there"));
        let Some(data) = control.get(CMSG_HEADER..length) else { break };
        match (word(kind, 0).cast_signed(), word(kind, 4).cast_signed()) {
            IP_PKTINFO if data.len() >= 12 => {
                // The address of this host; not known of a datagram that came before the socket was asked to
                // tell. Then the one in the datagram's header is.
                let known = if data[4..8] == [0; 4] { &data[8..12] } else { &data[4..8] };
                to = Some(LocalAddress::V4(known.try_into().expect("4 bytes")));
            }
            IPV6_PKTINFO if data.len() >= 20 => {
                let address = data[..16].try_into().expect("16 bytes");
                to = Some(LocalAddress::V6 { address, interface: word(data, 16) });
            }
            UDP_GRO if data.len() >= 4 => {
                segment = u16::try_from(word(data, 0)).ok().and_then(NonZeroU16::new);
            }
            _ => {}
        }
        control = control.get(aligned(length)..).unwrap_or_default();
    }
    (to, segment)
}

/// 32 bits in the machine's byte order.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const V4_NAME: [u8; 16] = [2, 0, 0x1b, 0x58, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

    /// What a kernel writes.
    fn buffer(name: &[u8], control: &Control, payload: &[u8], full: usize, flags: u32) -> Vec<u8> {
        let lengths = [name.len(), control.length, full];
        let mut bytes: Vec<u8> =
            lengths.iter().flat_map(|&length| u32::try_from(length).unwrap().to_ne_bytes()).collect();
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(name);
        bytes.resize(NAME_AT + NAME_ROOM, 0);
        bytes.extend(control.bytes);
        bytes.extend(payload);
        bytes
    }

    fn control(messages: &[((i32, i32), &[u8])]) -> Control {
        let mut control = Control { bytes: [0; CONTROL_ROOM], length: 0 };
        messages.iter().for_each(|&(kind, data)| control.push(kind, data));
        control
    }

    fn parse(control: &Control, payload: usize) -> Message {
        Message::parse(&buffer(&V4_NAME, control, &vec![7; payload], payload, 0)).unwrap()
    }

    #[test]
    fn a_plain_datagram_needs_no_control_messages() {
        let message = parse(&control(&[]), 5);
        assert_eq!((message.port, message.payload, message.datagrams()), (7000, 5, 1));
        assert_eq!(message.answer(true).length, 0);
        assert!(message.segments().eq(std::iter::once(HEAD..HEAD + 5)));
    }

    #[test]
    fn an_empty_datagram_is_one_datagram() {
        let message = parse(&control(&[]), 0);
        assert_eq!((message.datagrams(), message.is_truncated), (1, false));
        assert!(message.segments().eq(std::iter::once(HEAD..HEAD)));
    }

    #[test]
    fn the_answer_comes_from_where_the_datagram_went_to() {
        let message = parse(&control(&[(IP_PKTINFO, &[1, 0, 0, 0, 127, 0, 0, 2, 127, 0, 0, 9])]), 1);
        assert_eq!(message.to, Some(LocalAddress::V4([127, 0, 0, 2])));
        let expected = control(&[(IP_PKTINFO, &[0, 0, 0, 0, 127, 0, 0, 2, 0, 0, 0, 0])]);
        assert_eq!(message.answer(true), expected);
    }

    #[test]
    fn a_datagram_that_came_too_early_is_answered_from_its_destination() {
        let message = parse(&control(&[(IP_PKTINFO, &[0, 0, 0, 0, 0, 0, 0, 0, 127, 0, 0, 9])]), 1);
        assert_eq!(message.to, Some(LocalAddress::V4([127, 0, 0, 9])));
    }

    #[test]
    fn only_a_link_local_address_keeps_its_interface() {
        for (first, kept) in [([0xfe, 0x80], 3), ([0x20, 0x01], 0)] {
            let mut info = [0; 20];
            info[..2].copy_from_slice(&first);
            info[16..].copy_from_slice(&3u32.to_ne_bytes());
            let message = parse(&control(&[(IPV6_PKTINFO, &info)]), 1);
            info[16..].copy_from_slice(&u32::to_ne_bytes(kept));
            assert_eq!(message.answer(true), control(&[(IPV6_PKTINFO, &info)]));
        }
    }

    #[test]
    fn nothing_is_sent_from_a_group_of_receivers() {
        let mut multicast = [0; 20];
        multicast[0] = 0xff;
        let mut mapped_broadcast = [0; 20];
        mapped_broadcast[10..16].fill(0xff);
        for info in [multicast, mapped_broadcast] {
            assert_eq!(parse(&control(&[(IPV6_PKTINFO, &info)]), 1).answer(true).length, 0);
        }
        let group = [0, 0, 0, 0, 224, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(parse(&control(&[(IP_PKTINFO, &group)]), 1).answer(true).length, 0);
    }

    #[test]
    fn a_train_is_taken_apart_with_a_shorter_last_segment() {
        let message = parse(&control(&[(UDP_GRO, &1000u32.to_ne_bytes())]), 2500);
        assert_eq!(message.datagrams(), 3);
        let lengths: Vec<usize> = message.segments().map(|segment| segment.len()).collect();
        assert_eq!(lengths, [1000, 1000, 500]);
        assert_eq!(message.answer(true), control(&[(UDP_SEGMENT, &1000u16.to_ne_bytes())]));
        assert_eq!(message.answer(false).length, 0);
    }

    #[test]
    fn one_segment_is_no_train() {
        let message = parse(&control(&[(UDP_GRO, &1000u32.to_ne_bytes())]), 1000);
        assert_eq!((message.segment, message.datagrams()), (None, 1));
    }

    #[test]
    fn what_was_cut_off_is_seen() {
        let whole = control(&[]);
        for (flags, full) in [(MSG_TRUNC, 9), (MSG_CTRUNC, 3), (0, 9)] {
            let bytes = buffer(&V4_NAME, &whole, b"abc", full, flags);
            assert!(Message::parse(&bytes).unwrap().is_truncated, "{flags} {full}");
        }
        let train = control(&[(UDP_GRO, &1000u32.to_ne_bytes())]);
        let bytes = buffer(&V4_NAME, &train, &[0; 500], 2500, MSG_TRUNC);
        assert_eq!(Message::parse(&bytes).unwrap().datagrams(), 3, "cut off, but three were sent");
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let whole = buffer(&V4_NAME, &control(&[]), b"abc", 3, 0);
        assert!(Message::parse(&whole).is_some());
        assert!(Message::parse(&whole[..HEAD - 1]).is_none());
        for (field, value) in [(0, 33u32), (0, 0), (1, 65), (2, 2)] {
            let mut bytes = whole.clone();
            bytes[field * 4..field * 4 + 4].copy_from_slice(&value.to_ne_bytes());
            assert!(Message::parse(&bytes).is_none(), "field {field}: {value}");
        }
    }

    proptest! {
        /// Whatever is in the buffer, what comes out of it stays inside the buffer.
        #[test]
        fn no_bytes_lead_outside_the_buffer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(message) = Message::parse(&bytes) {
                prop_assert!(message.segments().all(|segment| segment.end <= bytes.len()));
                prop_assert!(message.answer(true).length <= CONTROL_ROOM);
            }
        }

        #[test]
        fn control_messages_of_any_content_are_walked_through(
            area in prop::collection::vec(any::<u8>(), 0..=CONTROL_ROOM),
            small in prop::collection::vec(0..40u8, 0..=CONTROL_ROOM),
        ) {
            ancillary(&area);
            ancillary(&small); // lengths that often lead on
        }

        /// The segments are the payload, cut without a gap, and as many as the peer sent.
        #[test]
        fn segments_are_the_payload(payload in 0..65_528usize, segment in 0..65_536u32) {
            let message = parse(&control(&[(UDP_GRO, &segment.to_ne_bytes())]), payload);
            let segments: Vec<_> = message.segments().collect();
            prop_assert_eq!(segments.len() as u64, message.datagrams());
            prop_assert_eq!((segments[0].start, segments[segments.len() - 1].end), (HEAD, HEAD + payload));
            prop_assert!(segments.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
