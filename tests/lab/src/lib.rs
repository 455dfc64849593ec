//! `lab`: the main job before and after, on an embedded multi-queue NIC, measured.
//!
//! The modules in the order in which a run passes through them:
//!
//! * [`cli`] reads the command line and checks what the machine must have;
//! * `json_file` finds out whether the file of `--json` can be written;
//! * `run` does the rounds: before; `tune apply`, after, `tune restore`, check; by turns one or the other
//!   first;
//! * [`namespace`] and [`veth`] make the network, `testbed` joins them to a NIC with a queue per CPU and a
//!   client;
//! * `child` starts a program in a namespace: this executable again, in the [`role`] of `server`, `tune` or
//!   `load`; `interrupt` ends the children when a signal comes (with `json_file`, `machine` and `summary`
//!   these are also what `peers` is made of);
//! * `measurement` is one server and one client run with the counters around it;
//! * `settings` reads every value that must be as it was after the restore;
//! * `metrics` takes the rows' values from the measurements, `summary` and `signed_rank` compare them,
//!   `report` makes the table and the JSON.
//!
//! # What the NIC is
//!
//! The server's end of a veth pair, `nic0`, with one RX and one TX queue per CPU. The client's end spreads
//! its flows over these queues by their hash ([`veth::spread_flows_over_peer_queues`]), as RSS does. What no
//! veth has is an interrupt per queue: as the kernel makes it, a packet is received on the CPU that sent it,
//! whatever its queue (`veth_xmit()` calls `__netif_rx()`, which without RPS takes the backlog of the CPU it
//! runs on). RPS with one CPU per queue, as `profiles/lab.toml` sets it, does what an interrupt per queue
//! does on a NIC: it moves queue q to the CPU of q, by an inter-processor interrupt and the NET_RX softirq
//! there.
//!
//! # What is counted
//!
//! `server` reads SO_INCOMING_CPU, the CPU on which the kernel processed the last segment of a connection:
//! right after an accept and after receives. *Accept-local* is the share of accepted connections,
//! *request-local* that of receives, for which it is the CPU of the worker that serves the connection.
//!
//! Before, without RPS, the SYN is processed on the CPU on which the client called `connect(2)`, within its
//! system call, and so is what its thread, which is pinned there, sends later. The hash that chooses the
//! listener knows nothing of that CPU: accept-local is about 1/N, as it is on a NIC whose RSS hash and
//! interrupts know nothing of the listener. Request-local is near it, not equal to it: an acknowledgement
//! that the client's kernel sends by itself leaves from the CPU on which the server's bytes arrived, which is
//! the worker's.
//!
//! After, the SYN's queue, chosen by a hash as RSS does it, decides on which CPU RPS has it processed; the
//! listener of this CPU is taken, and XPS sends on its queue.
//!
//! # What the numbers show, and what they do not
//!
//! The shares show that it is the steering that chooses the worker, and that it does so for every connection:
//! that is the same on a NIC. The rates, latencies and CPU times are of this machine and this embedded NIC:
//!
//! * client and server share the CPUs. Before, a packet changes CPU only by waking the thread that waits for
//!   it. After, a request whose queue is not of its client's CPU pays for an inter-processor interrupt to the
//!   worker's CPU too, which a client on another machine does not.
//! * there are no interrupts, no DMA and no interrupt moderation, and the bytes of a packet are in a cache of
//!   the machine already. What locality saves on a NIC is misses of caches and moves between NUMA nodes, of
//!   which there is little here.
//!
//! So a gain or a loss in the table is none that a real host must show: measure there.

pub mod child;
pub mod cli;
pub mod interrupt;
pub mod json_file;
pub mod machine;
mod measurement;
mod metrics;
pub mod namespace;
mod report;
pub mod role;
mod run;
mod settings;
mod signed_rank;
pub mod summary;
mod testbed;
pub mod veth;
