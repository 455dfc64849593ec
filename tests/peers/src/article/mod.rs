//! `peers article`: the table of the classic article on SO_REUSEPORT (K. Kumar, Linux Journal 298): a shared
//! listener against a listener per core, and, which it had not, one per core that gets what its own CPU
//! receives.
//!
//! Each model is there twice: `blocking` is what the article measured, processes that accept and close
//! (<https://gist.github.com/kkumar-fk/7b4587eb1a1c501961226322514d42ef>), and `server` is ours. Two
//! workloads: `accept`, connections made and reset, and `echo`, 1000 clients with 10 messages of 512 KiB
//! each; of both it is counted who has accepted how many. Servers and client have the same CPUs: over
//! loopback a SYN is received on the CPU of the client that sends it, so that connections must come from
//! every core. The models take turns, in one order and then in the reverse one; a server is started for each
//! turn and says at its end what each core has accepted.
//!
//! * [`cli`] reads the options; [`model`] has the servers and [`workload`] the clients;
//! * [`rounds`] has them take turns; [`report`] summarizes and prints.

pub(crate) mod cli;
mod model;
mod report;
mod rounds;
mod workload;
