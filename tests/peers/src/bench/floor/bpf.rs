//! An echo in the kernel: bpf(2), without a library, for one program of eight instructions.
//!
//! The server's ends of connections are in a socket hash (Documentation/bpf/map_sockmap.rst), under the port
//! of the other end. For each segment that one receives the kernel runs the program, which sends it out again
//! on the same socket.
#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::Context;

/// Of `enum bpf_cmd`, `bpf_map_type`, `bpf_prog_type` and `bpf_attach_type` in include/uapi/linux/bpf.h.
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const MAP_TYPE_SOCKHASH: u32 = 18;
const PROG_TYPE_SK_SKB: u32 = 14;
const SK_SKB_STREAM_VERDICT: u32 = 5;
/// `offsetof(struct __sk_buff, remote_port)`: the port in network byte order, in a word in network byte
/// order.
const REMOTE_PORT: i16 = 132;
/// `bpf_sk_redirect_hash(skb, map, key, flags)`; without flags out of the socket, not into it.
const SK_REDIRECT_HASH: i32 = 72;

/// Arguments of bpf(2), as much of the union as the commands here need, in words: the kernel takes what is
/// beyond its own length if it is 0.
type Attributes = [u32; 20];

/// Sockets whose bytes the kernel sends back, until this is dropped.
pub(crate) struct KernelEcho {
    map: OwnedFd,
    /// It stays attached as long as the map is there.
    _program: OwnedFd,
}

impl KernelEcho {
    /// For at most so many sockets. Needs CAP_BPF and CAP_NET_ADMIN.
    pub(crate) fn new(sockets: u32) -> anyhow::Result<Self> {
        let mut attributes = Attributes::default();
        attributes[..4].copy_from_slice(&[MAP_TYPE_SOCKHASH, 4, 4, sockets]);
        // SAFETY: four numbers.
        let map =
            unsafe { descriptor(MAP_CREATE, &attributes) }.context("bpf BPF_MAP_CREATE of a socket hash")?;
        let program = load(map.as_raw_fd()).context("bpf BPF_PROG_LOAD")?;
        let mut attributes = Attributes::default();
        attributes[..3].copy_from_slice(&[word(&map), word(&program), SK_SKB_STREAM_VERDICT]);
        // SAFETY: two descriptors and a number.
        unsafe { bpf(PROG_ATTACH, &attributes) }.context("bpf BPF_PROG_ATTACH to a socket hash")?;
        Ok(Self { map, _program: program })
    }

    /// Has the kernel echo what `socket` receives.
    pub(crate) fn add(&self, socket: &TcpStream) -> anyhow::Result<()> {
        let peer: SocketAddr = socket.peer_addr().context("the address of the other end")?;
        let (key, value) = (u32::from(peer.port()).to_be(), word(socket));
        let mut attributes = Attributes::default();
        attributes[0] = word(&self.map);
        set_pointer(&mut attributes, 2, &raw const key);
        set_pointer(&mut attributes, 4, &raw const value);
        // SAFETY: key and value live until the call comes back, and are as long as the map's.
        unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.context("bpf BPF_MAP_UPDATE_ELEM of a socket hash")?;
        Ok(())
    }
}

/// One instruction: `struct bpf_insn`.
const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let [o0, o1] = offset.to_ne_bytes();
    let [i0, i1, i2, i3] = immediate.to_ne_bytes();
    let registers =
        if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    u64::from_ne_bytes([code, registers, o0, o1, i0, i1, i2, i3])
}

/// `return bpf_sk_redirect_hash(skb, map, &skb->remote_port, 0);`
fn load(map: RawFd) -> io::Result<OwnedFd> {
    let program = [
        instruction(0x61, 2, 1, REMOTE_PORT, 0), // r2 = *(u32 *)(r1 + remote_port)
        instruction(0x63, 10, 2, -4, 0),         // *(u32 *)(r10 - 4) = r2
        instruction(0x18, 2, 1, 0, map),         // r2 = map, in two
        instruction(0, 0, 0, 0, 0),              //
        instruction(0xbf, 3, 10, 0, 0),          // r3 = r10
        instruction(0x07, 3, 0, 0, -4),          // r3 += -4
        instruction(0xb7, 4, 0, 0, 0),           // r4 = 0
        instruction(0x85, 0, 0, 0, SK_REDIRECT_HASH), // call
        instruction(0x95, 0, 0, 0, 0),           // exit
    ];
    let license = c"GPL";
    let mut attributes = Attributes::default();
    attributes[0] = PROG_TYPE_SK_SKB;
    attributes[1] = u32::try_from(program.len()).map_err(io::Error::other)?;
    set_pointer(&mut attributes, 2, program.as_ptr());
    set_pointer(&mut attributes, 4, license.as_ptr());
    // SAFETY: program and license live until the call comes back, and the program is as long as is said.
    unsafe { descriptor(PROG_LOAD, &attributes) }
}

fn word(descriptor: &impl AsRawFd) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

/// The kernel takes pointers as 64 bits.
fn set_pointer<T>(attributes: &mut Attributes, place: usize, pointer: *const T) {
    let bytes = (pointer.addr() as u64).to_ne_bytes();
    let (one, other) = bytes.split_at(4);
    for (word, bytes) in attributes[place..].iter_mut().zip([one, other]) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
}

/// A command that gives a descriptor.
///
/// # Safety
/// As that of [`bpf`].
unsafe fn descriptor(command: i32, attributes: &Attributes) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let descriptor = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// # Safety
/// Pointers in the attributes must be to what the command reads.
unsafe fn bpf(command: i32, attributes: &Attributes) -> io::Result<i32> {
    let (pointer, size) = (attributes.as_ptr(), size_of::<Attributes>());
    // SAFETY: the attributes are as long as is said; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size) };
    match i32::try_from(result) {
        Ok(result @ 0..) => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
