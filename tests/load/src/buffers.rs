//! The receive buffers of one thread's ring: a provided-buffer ring, from which the kernel takes a buffer for
//! each receive.
//!
//! A buffer is the kernel's from [`Buffers::publish`] until a completion names it; then it is the thread's
//! until it gives it back, which it does as soon as it has checked the bytes. Source:
//! `io_uring_register_buf_ring(3)`.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The one buffer group of a ring.
pub(crate) const GROUP: u16 = 0;

/// Bytes of all buffers of a ring. The kernel takes them in turn, so that all of them go through the cache.
const MEMORY: usize = 512 * 1024;

/// Bytes of a buffer: at least, so that there are no more of them than one turn of the loop fills, and at
/// most, unless a datagram needs more.
const SIZE: (usize, usize) = (2048, 32 * 1024);

/// Anonymous memory, page-aligned and zeroed, given back on drop.
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a null hint with no MAP_FIXED replaces no existing mapping.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), length, protection, flags) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and is not used after this; by the kernel neither, which
        // writes to a buffer only while the thread is inside `io_uring_enter` (DEFER_TASKRUN), and holds the
        // pages of the buffer ring itself.
        let result = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(result.is_ok());
    }
}

/// A buffer with bytes in it, which is the thread's until it is given back.
#[derive(Debug)]
pub(crate) struct Filled {
    id: u16,
    length: usize,
}

/// The buffers of one ring.
pub(crate) struct Buffers {
    ring: Mapping,
    memory: Mapping,
    count: u16,
    size: usize,
    /// Entries written to the ring so far; the kernel sees them through [`Buffers::publish`].
    tail: u16,
}

impl Buffers {
    /// Maps buffers for messages of `message` bytes, each of which fits into one if `whole`.
    pub(crate) fn map(message: usize, whole: bool) -> io::Result<Self> {
        let most = if whole { message.max(SIZE.1) } else { SIZE.1 };
        let size = message.next_power_of_two().clamp(SIZE.0, most.next_power_of_two());
        let count = u16::try_from((MEMORY / size).max(8)).expect("MEMORY / SIZE.0 fits");
        let ring = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size)?;
        let mut buffers = Self { ring, memory, count, size, tail: 0 };
        (0..count).for_each(|id| buffers.offer(id));
        buffers.publish();
        Ok(buffers)
    }

    /// Makes the buffers known to the ring as group [`GROUP`].
    pub(crate) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.ring.start.as_ptr() as u64;
        // SAFETY: the mapping is page-aligned and holds `count` entries. The kernel keeps its pages until the
        // ring is gone.
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, GROUP, 0) }
    }

    /// A completion named this buffer, with so many bytes in it: it is the thread's now.
    pub(crate) fn take(&self, id: u16, length: usize) -> Filled {
        assert!(id < self.count && length <= self.size, "the kernel names buffers that it was given");
        Filled { id, length }
    }

    /// The bytes in a buffer.
    pub(crate) fn bytes(&self, filled: &Filled) -> &[u8] {
        // SAFETY: `take` has checked that the offset lies inside the mapping.
        let first = unsafe { self.memory.start.add(usize::from(filled.id) * self.size) };
        // SAFETY: `length` bytes from `first` are inside the mapping by the check in `take`, initialised
        // (anonymous memory is zeroed), and not written by the kernel before the buffer is given back, which
        // consumes `filled`.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), filled.length) }
    }

    /// Gives a buffer back; the kernel may use it after the next [`Buffers::publish`].
    #[expect(clippy::needless_pass_by_value, reason = "whoever gives a buffer back has it no longer")]
    pub(crate) fn give_back(&mut self, filled: Filled) {
        self.offer(filled.id);
    }

    fn offer(&mut self, id: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies inside the ring's mapping.
        let entry = unsafe { self.ring.start.cast::<BufRingEntry>().add(slot) };
        // SAFETY: the offset of buffer `id` lies inside the mapping.
        let address = unsafe { self.memory.start.add(usize::from(id) * self.size) }.as_ptr() as u64;
        // SAFETY: the entry is valid for writes; `count` buffers exist, and the one that is not offered has
        // no entry, so this one is free. The setters leave `resv` of entry 0, which is the ring's tail,
        // alone.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.size).expect("a power of two near SIZE"));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel have the buffers that were given back.
    pub(crate) fn publish(&self) {
        // SAFETY: the pointer is the first entry of the ring, as `tail` requires.
        let tail = unsafe { BufRingEntry::tail(self.ring.start.as_ptr().cast()) };
        // SAFETY: the tail is 2-byte aligned, inside the mapping, written by this thread alone and read by
        // the kernel, for which the store releases the entries written before.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
