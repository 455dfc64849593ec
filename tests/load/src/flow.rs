//! What a connection of the echo mode sends and how it checks what comes back: a stream of bytes, or
//! datagrams. Pure.

use std::time::Instant;

use crate::messages::Messages;
use crate::pattern::Pattern;
use crate::stats::ThreadStats;

/// What all connections of a run share.
#[derive(Clone, Copy)]
pub(crate) struct Shape<'a> {
    pub(crate) pattern: &'a Pattern,
    /// Bytes of a message.
    pub(crate) size: u64,
    /// Messages that may be under way at once.
    pub(crate) depth: usize,
}

/// One connection's bytes.
pub(crate) trait Flow {
    /// `id`: its number in the whole run, the stream of the pattern. `messages`: how many may be started.
    fn new(id: u32, messages: u64, shape: &Shape<'_>) -> Self;

    fn messages(&self) -> &Messages;

    fn messages_mut(&mut self) -> &mut Messages;

    /// The next bytes of the messages that were started, unless bytes are on their way to the kernel already.
    fn next_send<'a>(&mut self, shape: &Shape<'a>) -> Option<&'a [u8]>;

    /// The kernel took so many of the bytes.
    fn sent(&mut self, length: usize);

    /// Checks bytes that came back and counts the messages that they finish.
    fn received(&mut self, shape: &Shape<'_>, bytes: &[u8], now: Instant, stats: &mut ThreadStats);

    /// Gives up messages that were started before `time`, where one can be lost without the connection.
    fn expire(&mut self, shape: &Shape<'_>, time: Instant, stats: &mut ThreadStats);

    /// Bytes that the kernel took and that have not come back.
    fn outstanding(&self, shape: &Shape<'_>) -> u64;
}
