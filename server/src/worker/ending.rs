//! How a worker goes: what it still knows of is closed, whether it has drained or failed.

use std::time::Duration;

use super::Worker;
use super::kernel::Kernel;
use super::token::{Descriptor, Token};

/// How often, and how long at a time, a worker that ends waits for connections that are on their way to it.
const LAST_WAITS: u32 = 100;
const LAST_WAIT: Duration = Duration::from_millis(1);

/// How often it tries to submit what is queued: one that is short of memory may take nothing at first.
const LAST_TRIES: u32 = 100;

impl<K: Kernel> Worker<'_, K> {
    /// Submits what is still queued, closes among it, and gives what was accepted and nobody knows of yet.
    fn last_turn(&mut self) -> Vec<Descriptor> {
        for _ in 0..LAST_TRIES {
            if self.kernel.consumed() == self.kernel.queued()
                || self.kernel.enter(self.memory, 0, None).is_err()
            {
                break;
            }
        }
        self.kernel.sync_completions();
        let mut accepted: Vec<Descriptor> = self.to_hand_over.drain(..).map(Descriptor::Plain).collect();
        while let Some(completion) = self.kernel.next() {
            match (completion.token, completion.result) {
                (Some(Token::Accept(_) | Token::AcceptOne(_)), Ok(number)) => {
                    accepted.push(self.kernel.accepted(number));
                }
                (Some(Token::Install(_)), Ok(number)) => accepted.push(Descriptor::Plain(number)),
                (Some(Token::TakeOver), Ok(number)) => {
                    self.counters.taken_over.add(1);
                    accepted.push(Descriptor::Plain(number));
                }
                (Some(Token::HandOver { number, member }), Err(_)) => {
                    if let Some((crew, _)) = &self.settings.crew {
                        crew.came_back(member as usize);
                    }
                    accepted.push(Descriptor::Plain(number));
                }
                _ => {}
            }
        }
        accepted
    }

    /// Closes what was handed to this worker before it was known that it ends: nobody else knows of it.
    fn close_what_still_comes(&mut self) {
        let Some((crew, member)) = self.settings.crew.clone() else { return };
        for _ in 0..LAST_WAITS {
            if !crew.is_awaiting(member) || self.kernel.enter(self.memory, 1, Some(LAST_WAIT)).is_err() {
                break;
            }
            for descriptor in self.last_turn() {
                self.kernel.close_now(descriptor);
            }
        }
    }
}

impl<K: Kernel> Drop for Worker<'_, K> {
    /// Ends what uses memory of the connections, and closes what the worker leaves open: because it failed,
    /// or because of peers that do not read.
    fn drop(&mut self) {
        if let Some((crew, member)) = &self.settings.crew {
            crew.set_ring(*member, -1);
            if *member == 0 {
                crew.close();
            }
        }
        self.count_cut_off();
        for descriptor in self.last_turn() {
            self.kernel.close_now(descriptor);
        }
        self.close_what_still_comes();
        for (id, connection) in self.connections.iter_mut() {
            if connection.is_sending() {
                self.kernel.cancel_now(Token::Send(id));
            }
            if let Some(alias) = connection.take_alias() {
                self.kernel.close_now(Descriptor::Plain(alias));
            }
            // The number of one that is being closed may be somebody else's by now.
            if connection.has_descriptor() {
                self.kernel.close_now(connection.descriptor());
            }
        }
    }
}
