//! The worker's receive buffers: a provided-buffer ring, from which the kernel takes a buffer for each
//! receive.
//!
//! A buffer is the kernel's from [`Buffers::publish`] until a completion with `IORING_CQE_F_BUFFER` names it;
//! then it is the worker's until it gives it back. Source: `io_uring_register_buf_ring(3)`.
//!
//! The kernel takes buffers in the order in which they were offered, so all that are offered go through the
//! cache in turn. Of buffers that are well filled only as many are offered at a time as the cache keeps
//! ([`HOT`]), those given back last first.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::ring::with_patience;
use super::token::BufferId;
use crate::config::Config;

/// The number of the pool among a ring's buffer groups.
pub(crate) const GROUP: u16 = 0;

/// The largest number of buffers: `IORING_REGISTER_PBUF_RING` takes at most 32768 entries.
pub(crate) const MAX_BUFFERS: u32 = 1 << 15;

/// Bytes of the buffers that are offered at a time, as far as they are filled: what a core's second-level
/// cache keeps beside the sockets' own memory. Measured: see server/README.md.
const HOT: usize = 256 * 1024;

/// No fewer buffers are offered, if there are as many: an enter runs about 20 requests, and one that finds no
/// buffer is to be armed again.
const LEAST_OFFERED: u16 = 16;

/// What memory is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pages {
    /// The base page size.
    Small,
    /// `MAP_HUGETLB`: huge pages of the default size, which must have been set aside.
    Huge,
}

impl Pages {
    /// As `--huge-pages` says.
    pub(crate) fn of(config: &Config) -> Self {
        if config.huge_pages { Self::Huge } else { Self::Small }
    }

    /// What to do when there is none.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Small => "; take fewer --buffers or a smaller --buffer-size",
            Self::Huge => {
                "; set huge pages aside with `sysctl vm.nr_hugepages=N`, see /proc/meminfo, or leave \
                 --huge-pages out"
            }
        }
    }
}

/// Length of a huge page of the usual default size, to which the kernel rounds such a mapping's length.
const HUGE_PAGE: usize = 2 << 20;

/// Anonymous memory, page-aligned and zeroed, given back on drop. Pages that a zero-copy send still has then
/// are the kernel's alone: nobody gets to write to them, as he would to memory given back to the heap.
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

impl Mapping {
    pub(super) fn new(length: usize, pages: Pages) -> io::Result<Self> {
        let (length, flags) = match pages {
            Pages::Small => (length, MapFlags::PRIVATE),
            Pages::Huge => (length.next_multiple_of(HUGE_PAGE), MapFlags::PRIVATE | MapFlags::HUGETLB),
        };
        // SAFETY: a null hint with no MAP_FIXED replaces no existing mapping.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    /// All of it. Not for memory that the kernel writes to.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` are mapped and initialised (anonymous memory is zeroed) as long
        // as `self` lives, and written only through `bytes_mut`, which borrows it mutably.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// As [`Mapping::bytes`].
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the mutable borrow makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    /// Gives the pages of `from..to`, whole ones, back to the system; they are zeroed when they are next
    /// used.
    pub(super) fn forget(&mut self, from: usize, to: usize) {
        assert!(from <= to && to <= self.length);
        // SAFETY: the offset lies inside the mapping by the check above.
        let start = unsafe { self.start.add(from) };
        // SAFETY: the range lies inside the mapping; the mutable borrow makes this the only user, and private
        // anonymous memory reads as zeros afterwards (`madvise(2)`, MADV_DONTNEED), so it stays initialised.
        let result = unsafe { madvise(start.as_ptr().cast(), to - from, Advice::LinuxDontNeed) };
        debug_assert!(result.is_ok());
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and is not used after this, by the kernel neither: it writes
        // to a buffer only while the worker's thread is inside `io_uring_enter` (DEFER_TASKRUN), which it no
        // longer calls, and holds the pages of the buffer ring itself until the ring is gone. Sends that read
        // from it were ended before, but for zero-copy ones, which keep the pages.
        let result = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(result.is_ok());
    }
}

/// Whose a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// The kernel may receive into it.
    Kernel,
    /// The worker: it holds bytes.
    Worker,
    /// It is free, and not offered to the kernel.
    Nobody,
}

/// The buffer pool.
pub(crate) struct Buffers {
    ring: Mapping,
    memory: Mapping,
    count: u16,
    size: usize,
    /// Entries written to the ring so far; the kernel sees it only through [`Buffers::publish`].
    tail: u16,
    published: u16,
    /// Whose each buffer is now, and how many are the worker's.
    holders: Box<[Holder]>,
    held: u16,
    /// Free buffers that are not offered to the kernel; the one given back last is the last.
    spare: Vec<BufferId>,
    /// Buffers that the kernel may use.
    offered: u16,
    /// Sliding average of the bytes in a buffer.
    fill: usize,
}

impl Buffers {
    /// Maps `count` buffers (a power of two, at most [`MAX_BUFFERS`]) of `size` bytes. Pages are touched on
    /// first use.
    ///
    /// # Errors
    /// ENOMEM without memory, or without as many huge pages.
    pub(crate) fn map(count: u16, size: u32, pages: Pages) -> io::Result<Self> {
        let size = size as usize;
        let ring = Mapping::new(usize::from(count) * size_of::<BufRingEntry>(), Pages::Small)?;
        let memory = Mapping::new(usize::from(count) * size, pages)?;
        let all = usize::from(count);
        let mut buffers = Self {
            ring,
            memory,
            count,
            size,
            tail: 0,
            published: 0,
            holders: vec![Holder::Worker; all].into(),
            held: count,
            spare: Vec::with_capacity(all),
            offered: 0,
            fill: 0,
        };
        (0..count).rev().for_each(|id| buffers.give_back(id));
        buffers.publish();
        Ok(buffers)
    }

    /// Makes the buffers known to the ring, as [`GROUP`].
    pub(crate) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        let address = self.ring.start.as_ptr() as u64;
        with_patience(|| {
            // SAFETY: the mapping is page-aligned and holds `count` entries. The kernel keeps its pages until
            // the ring is gone.
            unsafe { submitter.register_buf_ring_with_flags(address, self.count, GROUP, 0) }
        })
    }

    /// Buffers in the pool.
    pub(crate) fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Bytes in a buffer.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Buffers that the worker holds and the kernel can't receive into.
    pub(crate) fn held(&self) -> usize {
        usize::from(self.held)
    }

    /// Buffers that the kernel has, once they are [published](Buffers::publish).
    pub(crate) fn free(&self) -> usize {
        usize::from(self.window().min(self.count - self.held))
    }

    /// True if the worker holds more than half.
    pub(crate) fn few_left(&self) -> bool {
        self.held > self.count / 2
    }

    /// A completion named this buffer: it is the worker's now. `None` if there is no such buffer, or the
    /// kernel did not have it.
    pub(crate) fn take(&mut self, id: BufferId) -> Option<BufferId> {
        let holder = self.holders.get_mut(usize::from(id)).filter(|holder| **holder == Holder::Kernel)?;
        *holder = Holder::Worker;
        self.held += 1;
        self.offered -= 1;
        Some(id)
    }

    /// So many bytes came in a buffer.
    pub(crate) fn filled(&mut self, length: u32) {
        self.fill = (self.fill * 15 + length as usize) / 16;
    }

    /// How many buffers to offer at a time.
    fn window(&self) -> u16 {
        let hot = u16::try_from(HOT / self.fill.max(1)).unwrap_or(u16::MAX);
        hot.max(LEAST_OFFERED).min(self.count)
    }

    /// The bytes `start..end` of a buffer that the worker holds.
    pub(crate) fn bytes(&self, id: BufferId, start: usize, end: usize) -> &[u8] {
        assert!(self.holders[usize::from(id)] == Holder::Worker && start <= end && end <= self.size);
        // SAFETY: the offset lies inside the mapping by the check above.
        let first = unsafe { self.memory.start.add(usize::from(id) * self.size + start) };
        // SAFETY: `end - start` bytes from `first` are inside the mapping, initialised (anonymous memory is
        // zeroed), and not written by the kernel while the worker holds the buffer.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), end - start) }
    }

    /// What the kernel does when it receives: writes to the head of a buffer, which the test has.
    #[cfg(test)]
    pub(crate) fn write(&mut self, id: BufferId, bytes: &[u8]) {
        assert!(bytes.len() <= self.size);
        // SAFETY: the offset lies inside the mapping.
        let first = unsafe { self.memory.start.add(usize::from(id) * self.size) };
        // SAFETY: the buffer's bytes are inside the mapping, and no reference to them lives: `bytes` borrows
        // the pool.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), first.as_ptr(), bytes.len()) };
    }

    /// What the kernel does when it receives: takes the buffer that the ring's entry `head` names, if that is
    /// published, and writes to it.
    #[cfg(test)]
    pub(crate) fn receive(&mut self, head: u16, bytes: &[u8]) -> Option<BufferId> {
        if head == self.published {
            return None;
        }
        let slot = usize::from(head & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies inside the ring's mapping.
        let entry = unsafe { self.ring.start.cast::<BufRingEntry>().add(slot) };
        // SAFETY: the entry is initialised: `give_back` wrote it before `publish` made it known.
        let id = unsafe { entry.as_ref() }.bid();
        assert!(
            self.holders[usize::from(id)] == Holder::Kernel,
            "buffer {id} is in the ring and the worker has it"
        );
        self.write(id, bytes);
        Some(id)
    }

    /// Whether the ring's entry `head` is published.
    #[cfg(test)]
    pub(crate) fn is_published(&self, head: u16) -> bool {
        head != self.published
    }

    /// Gives a buffer back; the kernel may use it after the next [`Buffers::publish`].
    pub(crate) fn give_back(&mut self, id: BufferId) {
        let holder = std::mem::replace(&mut self.holders[usize::from(id)], Holder::Nobody);
        assert!(holder == Holder::Worker, "buffer {id} given back but not held");
        self.held -= 1;
        self.spare.push(id);
    }

    /// Writes a free buffer to the ring.
    fn offer(&mut self, id: BufferId) {
        self.holders[usize::from(id)] = Holder::Kernel;
        self.offered += 1;
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: `slot` is below `count`, so the entry lies inside the ring's mapping.
        let entry = unsafe { self.ring.start.cast::<BufRingEntry>().add(slot) };
        // SAFETY: the offset of buffer `id` lies inside the mapping.
        let address = unsafe { self.memory.start.add(usize::from(id) * self.size) }.as_ptr() as u64;
        // SAFETY: the entry is valid for writes; between the published tail and the kernel's head the worker
        // alone uses it: `count` buffers exist, and this one, which was not offered, has no entry there, so
        // that one is free. `set_*` write `addr`, `len` and `bid` and leave `resv` of entry 0, which is the
        // ring's tail, alone.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.size).expect("sizes are given as u32"));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel have free buffers, as many as it is to have at a time.
    pub(crate) fn publish(&mut self) {
        let window = self.window();
        while self.offered < window
            && let Some(id) = self.spare.pop()
        {
            self.offer(id);
        }
        if self.tail == self.published {
            return;
        }
        // SAFETY: the pointer is the first entry of the ring, as `tail` requires.
        let tail = unsafe { BufRingEntry::tail(self.ring.start.as_ptr().cast()) };
        // SAFETY: the tail is 2-byte aligned, inside the mapping, written by this thread alone and read by
        // the kernel, for which the store releases the entries written before.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        self.published = self.tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_held_until_given_back() {
        let mut buffers = Buffers::map(4, 64, Pages::Small).unwrap();
        assert_eq!((buffers.count(), buffers.held()), (4, 0));
        assert_eq!(buffers.take(3), Some(3));
        assert_eq!(buffers.take(4), None, "no such buffer");
        assert_eq!(buffers.take(3), None, "taken already");
        assert_eq!(buffers.held(), 1);
        assert_eq!(buffers.bytes(3, 0, 64), [0; 64]);
        buffers.give_back(3);
        assert_eq!(buffers.held(), 0);
    }

    #[test]
    fn of_full_buffers_few_are_offered_and_the_hottest_first() {
        let mut buffers = Buffers::map(256, 16 * 1024, Pages::Small).unwrap();
        assert_eq!(buffers.offered, 256);
        for id in 0..200 {
            buffers.take(id);
            buffers.filled(16 * 1024);
        }
        (0..200).for_each(|id| buffers.give_back(id));
        buffers.publish();
        assert_eq!(buffers.offered, 56, "those that were offered are still");
        for id in 200..256 {
            buffers.take(id);
        }
        buffers.publish();
        assert_eq!((buffers.offered, buffers.free()), (16, 16));
        assert!((184..200).all(|id| buffers.holders[id] == Holder::Kernel), "those given back last");
        for id in 184..200 {
            buffers.take(id);
            (0..4).for_each(|_| buffers.filled(10));
        }
        (184..200).for_each(|id| buffers.give_back(id));
        buffers.publish();
        assert!(buffers.offered > 100, "small messages take many");
    }

    #[test]
    #[should_panic(expected = "given back but not held")]
    fn a_buffer_given_back_twice_is_a_bug_that_stops_the_worker() {
        let mut buffers = Buffers::map(2, 64, Pages::Small).unwrap();
        buffers.take(1);
        buffers.give_back(1);
        buffers.give_back(1);
    }
}
