//! What holds in every order of events. What is checked is in [`super::run`], [`super::world`] and
//! [`super::requests`]; here is what it is checked for.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::case::Case;
use super::peer::Action;
use crate::config::{Mode, Overload};

fn script() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        8 => (1..200u32).prop_map(Action::Send),
        4 => (1..4000u32).prop_map(Action::Send),
        1 => (66_000..80_000u32).prop_map(Action::Send),
        2 => (1..20u32).prop_map(Action::Trickle),
        4 => Just(Action::Await),
        3 => Just(Action::StopReading),
        2 => Just(Action::Read),
        1 => (50..2000u32).prop_map(Action::ReadSlowly),
        1 => Just(Action::HalfClose),
        1 => Just(Action::Reset),
        1 => Just(Action::Stay),
    ];
    prop::collection::vec(action, 0..6)
}

fn choices(most: usize) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(any::<u16>().prop_map(u32::from), 0..most)
}

/// What a server is told, and how large it is.
fn server() -> impl Strategy<Value = Case> {
    let mode = prop_oneof![
        6 => Just(Mode::Echo),
        1 => Just(Mode::Discard),
        2 => Just(Mode::SinkSource),
        1 => Just(Mode::AcceptClose),
    ];
    let buffers =
        (select(vec![1, 2, 4, 8u16]), select(vec![64, 64, 300, 4096u32]), select(vec![0, 1, 2, 5, 64]));
    let sizes = (1..=8u32, 0..6usize, 1..=2usize);
    let ring = (
        select(vec![5, 8, 64usize]),
        select(vec![0, 3, 16, 256usize]),
        any::<bool>(),
        prop::option::of(40..600usize),
        prop::option::weighted(0.9, select(vec![1, 2, 5, 40usize])),
        select(vec![1, 3, 1000u32]),
    );
    let options = (
        any::<bool>(),
        prop::option::weighted(0.2, (1..2000u64).prop_map(Duration::from_millis)),
        prop::option::weighted(0.3, select(vec![1, 100, 1000u32])),
        prop::option::weighted(0.1, Just(Duration::from_micros(20))),
    );
    (mode, sizes, buffers, ring, options).prop_map(|(mode, sizes, buffers, ring, options)| Case {
        mode,
        overload: if options.0 { Overload::Queue } else { Overload::Reset },
        max_connections: sizes.0,
        backlog: sizes.1,
        listeners: sizes.2,
        buffers: buffers.0,
        buffer_size: buffers.1,
        spill: buffers.2,
        submissions: ring.0,
        // The kernel makes no completion queue shorter than the submission queue.
        completions: ring.0 + ring.1,
        direct: ring.2,
        credit: ring.3,
        splice: ring.4.map(|count| buffers.1 as usize * count),
        aliases_below: ring.5,
        idle_timeout: options.1,
        zerocopy_threshold: options.2,
        spin: options.3.unwrap_or_default(),
        ..Case::default()
    })
}

/// The windows of the connections, small and large.
fn windows() -> impl Strategy<Value = [usize; 3]> {
    [60..5000usize, 60..5000usize, 60..5000usize]
}

/// Peers that read slowly what they send without waiting. The spill has room for four pieces of each, half of
/// that before it is tight: a fifth is begun by who may queue
/// [`PAUSE_AT`](crate::worker::connection::PAUSE_AT).
fn slow_readers() -> impl Strategy<Value = Case> {
    let script = (100..2000u32, 80_000..160_000u32);
    let script = script.prop_map(|(pace, bytes)| vec![Action::ReadSlowly(pace), Action::Send(bytes)]);
    let peers = prop::collection::vec(script, 4..8);
    (server(), windows(), peers, choices(2000)).prop_map(|(server, windows, peers, choices)| Case {
        mode: Mode::Echo,
        max_connections: 8,
        credit: server.credit.or(Some(600)),
        spill: 4 * peers.len(),
        idle_timeout: None,
        windows,
        peers,
        choices,
        ..server
    })
}

/// When the server is told to stop, if while it is busy.
fn signals() -> impl Strategy<Value = (Option<usize>, Option<usize>)> {
    (prop::option::weighted(0.4, 0..80usize), prop::option::weighted(0.2, 0..60usize))
}

fn cases() -> impl Strategy<Value = Case> {
    let peers = prop::collection::vec(script(), 1..12);
    (server(), windows(), peers, signals(), choices(2000)).prop_map(
        |(server, windows, peers, signals, choices)| Case {
            windows,
            peers,
            choices,
            drain_at: signals.0,
            stop_after: signals.1,
            ..server
        },
    )
}

/// Two workers of which one accepts.
fn crews() -> impl Strategy<Value = Case> {
    // Connections that are handed over are plain descriptors.
    cases().prop_map(|case| Case { workers: 2, direct: false, overload: Overload::Queue, ..case })
}

/// So many connections that multishot accepts are armed, and their burst meets the limit.
fn crowds() -> impl Strategy<Value = Case> {
    let action = prop_oneof![
        3 => (1..100u32).prop_map(Action::Send),
        2 => Just(Action::Await),
        2 => Just(Action::Stay),
        1 => Just(Action::Reset),
    ];
    let peers = prop::collection::vec(prop::collection::vec(action, 0..3), 60..140);
    (server(), peers, 85..110u32, 0..3usize, signals(), choices(4000)).prop_map(
        |(server, peers, max_connections, backlog, signals, choices)| Case {
            max_connections,
            backlog,
            peers,
            choices,
            drain_at: signals.0,
            ..server
        },
    )
}

proptest! {
    /// No byte is lost, repeated, changed or given to another; every buffer and slot comes back; nobody waits
    /// for ever.
    #[test]
    fn every_order_of_completions_is_survived(case in cases()) {
        case.run();
    }

    /// The same for connections that one worker accepts and hands to the other.
    #[test]
    fn every_order_of_hand_overs_is_survived(case in crews()) {
        case.run();
    }

    /// What was on its way to a worker that fails is closed, and no descriptor is lost.
    #[test]
    fn the_failure_of_a_worker_leaves_no_connection_open(case in crews(), turn in 0..60usize) {
        Case { fails_at: Some(turn), ..case }.run();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, ..ProptestConfig::default() })]

    /// Who reads, if slowly, is not reset as long as the spill has room for what one receive may bring of
    /// each.
    #[test]
    fn who_reads_slowly_gets_every_byte(case in slow_readers()) {
        let outcome = case.run();
        prop_assert_eq!(outcome.counters.spill_full, 0);
        prop_assert_eq!(outcome.counters.bytes_out, outcome.read.iter().sum::<u64>());
    }

    /// Nor is a byte lost in bursts of connections around the limit, of which none finds the table of direct
    /// descriptors full.
    #[test]
    fn bursts_around_the_limit_are_survived(case in crowds()) {
        case.run();
    }
}
