//! `peers`: what a user would pick instead of `server`, and the runner that measures `server` against it.
//!
//! * [`cli`] reads the command line;
//! * `peer` has the peers, one subcommand each;
//! * [mod@bench] is the runner of `peers bench`: rounds of all contenders by turns, under one client;
//! * `article` is `peers article`: who accepts how many with which kind of listener;
//! * [`role`] is what children do first: they pin themselves, die with who started them, and become `server`,
//!   a peer or any other command.

mod accepts;
mod article;
pub mod bench;
pub mod cli;
mod cores;
mod peer;
pub mod role;
