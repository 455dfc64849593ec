//! The worker's io_uring: submission, waiting, completions. How it is made is in [`setup`].
//!
//! What is asked of the kernel is in [`super::operations`]; here is how it gets there and how answers come
//! back.
#![allow(unsafe_code)]

mod setup;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter, cqueue};
use rustix::io::Errno;

use super::descriptors;
use super::enter::enter;
use super::features::Features;
use super::kernel::{Completion, Kernel, Manner, Request, Spliced};
use super::memory::{Memory, Span};
use super::operations::VectorArena;
use super::pipe::{self, Pipe};
use super::token::{ConnectionId, Descriptor, Token};
pub use setup::SetupError;
pub(super) use setup::{COMPLETIONS, create_small, with_patience};
pub(crate) use setup::{busy_poll, create};

/// Turns the kernel's `-errno` into an error; the only place that does.
pub(super) fn result_of(result: i32) -> Result<u32, Errno> {
    u32::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}

/// Submission and completion side of one ring, borrowed for the life of the worker's loop.
pub(crate) struct Ring<'r> {
    submitter: Submitter<'r>,
    submissions: SubmissionQueue<'r>,
    completions: CompletionQueue<'r>,
    /// Requests queued since the ring was made.
    queued: u64,
    enter_flags: EnterFlags,
    /// Message headers of requests that the kernel has not read yet.
    pub(super) vectors: VectorArena,
    pub(super) features: Features,
    /// If it is used.
    pipe: Option<Pipe>,
    /// Where the kernel writes `SO_INCOMING_CPU`, by direct descriptor.
    pub(super) incoming_cpus: Box<[i32]>,
}

impl<'r> Ring<'r> {
    /// Takes a ring of [`create`] into use. Registers the ring's own descriptor, which spares each
    /// `io_uring_enter` the look-up (since 5.18), and, if they are used, a table of `slots` direct
    /// descriptors.
    ///
    /// # Errors
    /// If registering fails: EMFILE when `slots` is above RLIMIT_NOFILE.
    pub(crate) fn new(uring: &'r mut IoUring, features: Features, slots: u32) -> Result<Self, SetupError> {
        let no_iowait = uring.params().is_feature_no_iowait();
        let (mut submitter, submissions, completions) = uring.split();
        let register = "register the ring's descriptor";
        submitter.register_ring_fd().map_err(|error| SetupError::failed(register, error))?;
        let direct = if features.direct_descriptors { slots } else { 0 };
        if direct > 0 {
            submitter.register_files_sparse(direct).map_err(|error| SetupError::Failed {
                operation: "register the direct descriptor table",
                error,
                hint: "; lower --max-connections or raise the limit of open files (ulimit -n, LimitNOFILE=)",
            })?;
        }
        let pipe = features.splice.then(Pipe::new).transpose().map(Option::flatten);
        let pipe = pipe.map_err(|error| SetupError::Failed {
            operation: "make a pipe",
            error,
            hint: "; raise the limit of open files (ulimit -n, LimitNOFILE=)",
        })?;
        let mut enter_flags = EnterFlags::GETEVENTS;
        enter_flags.set(EnterFlags::NO_IOWAIT, no_iowait);
        Ok(Self {
            submitter,
            submissions,
            completions,
            queued: 0,
            enter_flags,
            vectors: VectorArena::new(),
            features,
            pipe,
            incoming_cpus: vec![0; direct as usize].into_boxed_slice(),
        })
    }

    /// For registering the buffer pool.
    pub(crate) fn submitter(&self) -> &Submitter<'r> {
        &self.submitter
    }

    /// Queues a request.
    ///
    /// # Safety
    /// What the request points to must stay valid, and for a receive unused, until the kernel is done with
    /// it: until [`Kernel::consumed`] covers it for what the kernel copies at submission, until its
    /// completion for all else.
    unsafe fn push(&mut self, entry: &Entry) {
        self.queued += 1;
        // SAFETY: the caller's promise is the one that `push` asks for.
        let pushed = unsafe { self.submissions.push(entry) };
        pushed.expect("the worker asks only where there is room");
    }

    /// True while requests wait that the kernel has not taken: it wants completions to be taken first.
    fn has_unsubmitted(&self) -> bool {
        !self.submissions.is_empty()
    }
}

impl Kernel for Ring<'_> {
    fn room(&self) -> usize {
        self.submissions.capacity() - self.submissions.len()
    }

    fn ask(&mut self, request: Request) {
        let entry = self.entry(request);
        // SAFETY: these requests point to no memory, or to the ring's own, which lives as long as it does and
        // is not read before the completion; a receive names a buffer group, whose pool outlives the ring.
        unsafe { self.push(&entry) };
    }

    fn send(
        &mut self,
        id: ConnectionId,
        descriptor: Descriptor,
        spans: impl Iterator<Item = Span> + Clone,
        memory: &Memory,
        manner: Manner,
    ) -> usize {
        let (entry, count) = self.send_entry(descriptor, spans, memory, manner);
        // SAFETY: the connection keeps these spans where they are, and their buffers held, until the worker
        // reports the send as ended; it does so on its last completion or, for a silent one, when the kernel
        // has taken it and no completion came. The message header stays until the request is taken: `enter`
        // clears the arena only then.
        unsafe { self.push(&entry.user_data(Token::Send(id).encode())) };
        count
    }

    fn queued(&self) -> u64 {
        self.queued
    }

    fn consumed(&self) -> u64 {
        self.queued - self.submissions.len() as u64
    }

    fn has_overflowed(&self) -> bool {
        self.submissions.cq_overflow()
    }

    /// An enter that waits for one completion runs at most 20 requests that are ready
    /// (`IO_LOCAL_TW_DEFAULT_MAX` in the kernel's `io_uring/io_uring.c`, since 6.13). `IORING_SQ_TASKRUN`
    /// says that there are more, and sometimes says so when there are none: `__io_run_local_work` clears it
    /// once, before it runs also what came meanwhile. So an enter that brought nothing had nothing to run.
    fn has_caught_up(&mut self) -> bool {
        let ran_all = !self.submissions.taskrun() || self.sync_completions() == 0;
        ran_all && !self.has_overflowed() && !self.has_unsubmitted()
    }

    /// One system call, so that what the worker decided on, such as how many connections to accept, is not
    /// outrun.
    ///
    /// # Errors
    /// Any but EINTR, ETIME, EAGAIN (out of request memory) and EBUSY (completions have to be taken first).
    fn enter(&mut self, memory: &mut Memory, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        memory.publish();
        let entered = enter(&self.submitter, &mut self.submissions, self.enter_flags, want, timeout);
        if !self.has_unsubmitted() {
            self.vectors.clear();
        }
        entered
    }

    fn sync_completions(&mut self) -> usize {
        self.completions.sync();
        self.completions.len()
    }

    fn next(&mut self) -> Option<Completion> {
        let entry = self.completions.next()?;
        let notification = cqueue::notif(entry.flags());
        Some(Completion {
            token: Token::decode(entry.user_data()),
            // A notification's result is a set of flags: whether the bytes were copied all the same.
            result: if notification { Ok(u32::from(entry.result() != 0)) } else { result_of(entry.result()) },
            more: cqueue::more(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
            left_some: cqueue::sock_nonempty(entry.flags()),
            notification,
        })
    }

    fn cancel_now(&mut self, request: Token) {
        let timeout = Timespec::new().sec(1);
        // ENOENT: it has ended.
        let request = CancelBuilder::user_data(request.encode());
        let _ = self.submitter.register_sync_cancel(Some(timeout), request);
    }

    fn accepted(&self, number: u32) -> Descriptor {
        if self.features.direct_descriptors { Descriptor::Direct(number) } else { Descriptor::Plain(number) }
    }

    fn sampled_cpu(&self, number: u32) -> Option<u32> {
        self.read_sampled_cpu(number)
    }

    fn incoming_cpu(&self, number: u32) -> Option<u32> {
        descriptors::incoming_cpu(number)
    }

    fn unsent_bytes(&self, number: u32) -> Result<u32, Errno> {
        descriptors::unsent_bytes(number)
    }

    fn reset_on_close(&mut self, number: u32) {
        descriptors::reset_on_close(number);
    }

    fn most_spliced(&self) -> usize {
        self.pipe.as_ref().map_or(0, |_| pipe::MOST)
    }

    fn splice(&mut self, number: u32) -> Result<Spliced, Errno> {
        descriptors::splice(number, self.pipe.as_ref().ok_or(Errno::AGAIN)?)
    }

    fn left_over(&mut self, bytes: &mut [u8]) -> usize {
        self.pipe.as_ref().expect("bytes were spliced").read(bytes)
    }

    fn close_now(&mut self, descriptor: Descriptor) {
        descriptors::close_now(descriptor);
    }

    fn accept_now(&mut self, listener: BorrowedFd<'_>) -> Result<Descriptor, Errno> {
        descriptors::accept_now(listener)
    }

    fn drops(&self, listener: BorrowedFd<'_>) -> Option<u32> {
        descriptors::drops(listener)
    }

    fn stop_queueing(&mut self, listener: BorrowedFd<'_>) {
        // If it fails, those who come now are accepted as well.
        let _ = rustix::net::listen(listener, 0);
    }

    fn take_wake(&mut self, wake: BorrowedFd<'_>) {
        // EAGAIN if it was empty already.
        let _ = rustix::io::read(wake, &mut [0u8; 8]);
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Drop for Ring<'_> {
    /// Lets the ring go when it is dropped: a registered descriptor would keep it until the thread ends.
    fn drop(&mut self) {
        // If it fails there is nothing left to do about it.
        let _ = self.submitter.unregister_ring_fd();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::fd::AsRawFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use io_uring::opcode;
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::worker::buffers::Pages;
    use crate::worker::kernel::Listener;
    use crate::worker::spill::Spill;

    /// Completions that [`create_small`] has room for.
    const ROOM: usize = 32;

    /// Gives `work` a ring of [`create_small`].
    fn on_a_small_ring(direct_descriptors: bool, work: impl FnOnce(&mut Ring<'_>, &mut Memory)) {
        let Ok(mut uring) = create_small() else { return eprintln!("SKIPPED: no io_uring here") };
        assert_eq!(uring.params().cq_entries() as usize, ROOM);
        let mut memory = Memory::map(1, 64, Pages::Small, false, Spill::map(0).unwrap()).unwrap();
        let features = Features { direct_descriptors, receive_credit: false, splice: false };
        work(&mut Ring::new(&mut uring, features, 128).unwrap(), &mut memory);
    }

    /// One trigger takes the whole accept queue. What the completion queue has no room for waits in the
    /// kernel, which ends the accept; armed again it brings the rest.
    #[test]
    fn an_accept_that_a_full_completion_queue_ends_is_armed_again_and_loses_nobody() {
        const CLIENTS: usize = 100;
        for direct in [false, true] {
            on_a_small_ring(direct, |ring, memory| {
                // Of the family whose clients are in the queue when `connect` returns.
                let name = format!("corelocal-ring-{}-{direct}", std::process::id());
                let address = SocketAddr::from_abstract_name(name).unwrap();
                let listener = UnixListener::bind_addr(&address).unwrap();
                let connect = |_| UnixStream::connect_addr(&address).unwrap();
                let _clients: Vec<UnixStream> = (0..CLIENTS).map(connect).collect();
                let accept =
                    Request::AcceptMultishot(Listener { index: 0, descriptor: listener.as_raw_fd() });
                ring.ask(accept);
                ring.enter(memory, 0, None).unwrap();
                assert!(ring.has_overflowed() && !ring.has_caught_up());
                let (mut accepted, mut ends) = (HashSet::new(), 0);
                while accepted.len() < CLIENTS {
                    assert!(ring.sync_completions() > 0, "{} accepted, {ends} ends", accepted.len());
                    while let Some(Completion { result, more, .. }) = ring.next() {
                        assert!(accepted.insert(result.unwrap()), "{result:?} twice");
                        if !more {
                            ends += 1;
                            ring.ask(accept);
                        }
                    }
                    ring.sync_completions();
                    ring.enter(memory, 0, None).unwrap();
                }
                assert!(ends > 0 && !ring.has_overflowed(), "{ends} ends");
                if !direct {
                    accepted.iter().for_each(|&number| ring.close_now(Descriptor::Plain(number)));
                }
            });
        }
    }

    /// Requests whose completions there is no room for, and that the kernel may leave where they are until
    /// there is (EBUSY).
    #[test]
    fn requests_beyond_a_full_completion_queue_are_all_taken_and_answered() {
        on_a_small_ring(false, |ring, memory| {
            let readable = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
            for _ in 0..20 {
                (0..ring.room()).for_each(|_| ring.ask(Request::PollWake(readable.as_raw_fd())));
                ring.enter(memory, 0, None).unwrap();
            }
            assert!(ring.queued() > ROOM as u64 && ring.has_overflowed());
            let mut answered = 0;
            while answered < ring.queued() {
                assert!(ring.sync_completions() > 0, "{answered} of {} answered", ring.queued());
                answered += std::iter::from_fn(|| ring.next()).count() as u64;
                ring.sync_completions();
                ring.enter(memory, 0, None).unwrap();
            }
            assert_eq!((ring.consumed(), ring.sync_completions()), (ring.queued(), 0));
        });
    }

    /// A worker makes its ring on its own thread, or nothing would work at all.
    #[test]
    fn a_ring_serves_only_the_thread_that_made_it() {
        let Ok(mut ring) = create() else { return eprintln!("SKIPPED: no io_uring here") };
        let mut submit = || {
            // SAFETY: a request to do nothing points to no memory.
            unsafe { ring.submission().push(&opcode::Nop::new().build()) }.unwrap();
            ring.submit().map_err(|error| Errno::from_io_error(&error))
        };
        assert_eq!(submit(), Ok(1));
        let elsewhere = std::thread::scope(|scope| scope.spawn(submit).join().unwrap());
        assert_eq!(elsewhere, Err(Some(Errno::EXIST)));
    }
}
