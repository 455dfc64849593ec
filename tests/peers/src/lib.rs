//! `peers`: what a user would pick instead of `server`, and the runner that measures `server` against it.
//!
//! * [`cli`] reads the command line;
//! * [`epoll`] is the peer of `peers epoll`: one epoll, one listener, one pinned thread per core;
//! * [mod@bench] is the runner of `peers bench`: rounds of all contenders by turns, under one client;
//! * [`role`] is what the runner's children do first: they pin themselves, die with the runner, and become `server`, a peer
//!   or any other command.

pub mod bench;
pub mod cli;
pub mod epoll;
pub mod role;
