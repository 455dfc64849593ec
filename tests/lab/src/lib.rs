//! `lab`: the main job before and after, on an embedded multi-queue NIC, measured.
//!
//! The modules in the order in which a run passes through them:
//!
//! * [`cli`] reads the command line and checks what the machine must have;
//! * `run` does the rounds: before, `tune apply`, after, `tune restore`, check;
//! * [`namespace`] and [`veth`] make the network, `testbed` joins them to a NIC with a queue per CPU and a client;
//! * `child` starts a program in a namespace: this executable again, in the [`role`] of `server`, `tune` or `load`;
//!   `interrupt` ends the children when a signal comes;
//! * `measurement` is one server and one client run with the counters around it;
//! * `settings` reads every value that must be as it was after the restore;
//! * `metrics`, `summary` and `report` turn measurements into the table and the JSON.
//!
//! # What the NIC is
//!
//! The server's end of a veth pair, `nic0`, with one RX and one TX queue per CPU. The client's end spreads its flows
//! over these queues by their hash ([`veth::spread_flows_over_peer_queues`]), as RSS does. What no veth has is an
//! interrupt per queue: as the kernel makes it, a packet is received on the CPU that sent it, whatever its queue
//! (`veth_xmit()` calls `__netif_rx()`, which without RPS takes the backlog of the CPU it runs on). RPS with one CPU
//! per queue, as `profiles/lab.toml` sets it, does what an interrupt per queue does on a NIC: it moves queue q to the
//! CPU of q, by an inter-processor interrupt and the NET_RX softirq there.
//!
//! So before, with listeners chosen by hash, the CPU that received a connection's SYN, the listener's CPU, and the
//! client's CPU are independent of one another: accept-local is 1/N. After, the queue decides all of it.
//!
//! Server and client share the machine's CPUs, and each packet that changes CPU pays for an inter-processor interrupt
//! that a real NIC does not need. The shares say what steering does; the rates say what it costs or gains here, on
//! this machine, with client and server on the same CPUs.

mod child;
pub mod cli;
mod interrupt;
mod machine;
mod measurement;
mod metrics;
pub mod namespace;
mod report;
pub mod role;
mod run;
mod settings;
mod summary;
mod testbed;
pub mod veth;
