//! Cases by name: the smallest that show what a property once found, or that a way in which servers go wrong
//! is not ours.

use std::time::Duration;

use super::case::Case;
use super::peer::Action;
use super::run::Outcome;
use super::seen::Seen;
use crate::config::Mode;
use crate::worker::connection::PAUSE_AT;
use crate::worker::operations::RECEIVE_CREDIT;

#[test]
fn kind_peers_are_served_by_a_kind_kernel() {
    let outcome = Case { peers: vec![vec![Action::Send(100)]; 3], ..Case::default() }.run();
    assert_eq!(outcome.read, [100; 3]);
    assert_eq!((outcome.counters.accepted, outcome.counters.bytes_out), (3, 300));
}

/// Found by `every_order_of_hand_overs_is_survived`: the accepts of the first listener took the last free
/// slot, and the clients of the second waited for ever.
#[test]
fn a_listener_to_which_nobody_comes_does_not_keep_the_last_slot() {
    let quiet = vec![Action::Stay];
    let peers = vec![quiet.clone(), vec![Action::Send(100)], quiet, vec![Action::Send(100)]];
    let outcome = Case { listeners: 2, max_connections: 1, peers, ..Case::default() }.run();
    assert_eq!((outcome.counters.accepted, outcome.read[1], outcome.read[3]), (4, 100, 100));
}

/// Found by `bursts_around_the_limit_are_survived`: with no room for the second listener's accepts the worker
/// went to sleep.
#[test]
fn accepts_for_which_there_was_no_room_are_asked_for_before_the_worker_sleeps() {
    let peers = vec![vec![Action::Send(10)]; 4];
    let case = Case { listeners: 2, max_connections: 80, submissions: 5, peers, ..Case::default() };
    assert_eq!(case.run().counters.accepted, 4);
}

/// What a peer that does not read may have to itself.
fn one_stalls_and_others_do_not(zerocopy_threshold: u32) -> Outcome {
    let stalled = vec![Action::StopReading, Action::Send(6000)];
    let others = vec![vec![Action::Send(2000), Action::Await, Action::Send(500)]; 3];
    let peers = [vec![stalled], others].concat();
    let windows = [500; 3];
    let zerocopy_threshold = Some(zerocopy_threshold);
    Case { zerocopy_threshold, buffers: 4, windows, peers, ..Case::default() }.run()
}

/// Found by `every_order_of_completions_is_survived`: a zero-copy send waits for the peer, and what came
/// meanwhile was neither copied out of the pool nor bounded; the others starved, and the worker spun.
#[test]
fn zero_copy_sends_to_a_peer_that_does_not_read_leave_buffers_to_the_others() {
    let outcome = one_stalls_and_others_do_not(1);
    assert_eq!(outcome.read, [6000, 2500, 2500, 2500]);
    assert!(outcome.seen.notifications > 0, "{:?}", outcome.seen);
}

#[test]
fn a_peer_that_does_not_read_has_a_bounded_queue_and_later_gets_every_byte() {
    let in_the_pool = PAUSE_AT..PAUSE_AT + 1024;
    // The last sends large messages: as many bytes as are spliced at a time.
    let cases = [(Some(1), 64, in_the_pool.clone()), (None, 1024, in_the_pool), (None, 64, 256..512 + 256)];
    for (zerocopy_threshold, buffer_size, queued) in cases {
        let peers = vec![vec![Action::StopReading, Action::Send(200_000)]];
        let base = Case { zerocopy_threshold, buffer_size, credit: Some(512), ..Case::default() };
        let outcome = Case { windows: [700; 3], peers, ..base }.run();
        assert_eq!(outcome.read, [200_000]);
        assert!(queued.contains(&outcome.most_queued), "{}", outcome.most_queued);
    }
}

/// Sends take [`MOST_PIECES`](crate::worker::kernel::MOST_PIECES) pieces at a time: one that is over has not
/// shown that the peer has read all before.
#[test]
fn a_peer_that_reads_slowly_has_a_bounded_queue_though_it_is_of_many_pieces() {
    let credit = 40_000;
    let peers = vec![vec![Action::ReadSlowly(1000), Action::Send(900_000)]];
    let base = Case { buffers: 8192, completions: 4096, credit: Some(credit), ..Case::default() };
    let outcome = Case { splice: None, windows: [50_000, 700, 700], peers, ..base }.run();
    assert_eq!(outcome.read, [900_000]);
    let queued = PAUSE_AT..=PAUSE_AT + credit as u64;
    assert!(queued.contains(&outcome.most_queued), "{}", outcome.most_queued);
}

/// The bound of the spill: what one stalled peer sends has a place there, that of others has none.
#[test]
fn where_the_spill_is_full_who_does_not_read_is_reset_and_the_others_get_every_byte() {
    let stalled = vec![Action::StopReading, Action::Send(6000)];
    let other = vec![Action::Send(200), Action::Await, Action::Send(100)];
    let peers = [vec![stalled; 4], vec![other; 3]].concat();
    for (spill, direct, buffer_size) in [(0, true, 64), (1, true, 64), (1, false, 300), (2, true, 300)] {
        let base = Case { spill, direct, buffer_size, buffers: 4, windows: [500; 3], ..Case::default() };
        let outcome = Case { peers: peers.clone(), ..base }.run();
        let lost = outcome.read[..4].iter().filter(|&&read| read < 6000).count() as u64;
        assert!(lost > 0 && outcome.counters.spill_full == lost, "{outcome:?}");
        assert_eq!(outcome.read[4..], [300; 3]);
    }
}

/// While the spill is tight a receive brings no more than fills a buffer until it is known whether the peer
/// reads: for those who come then and do not, there is room. Two that have filled half of it are here, and
/// eight who leave for eight others.
#[test]
fn who_comes_while_the_spill_is_tight_and_does_not_read_is_not_reset() {
    let hoards = vec![Action::StopReading, Action::Send(1_500_000)];
    let leaves = [Action::Send(10), Action::Await].repeat(8);
    let comes = vec![Action::StopReading, Action::Send(300_000)];
    let peers = [vec![hoards; 2], vec![leaves; 8], vec![comes; 8]].concat();
    let base = Case { max_connections: 10, buffers: 16, buffer_size: 16384, spill: 50, ..Case::default() };
    let credit = Some(RECEIVE_CREDIT as usize);
    let outcome = Case { splice: None, credit, windows: [300_000, 700, 700], peers, ..base }.run();
    assert_eq!(outcome.counters.spill_full, 0);
    assert_eq!(outcome.read[10..], [300_000; 8]);
}

/// Seen with real sockets: all buffers were queued for peers that do not read; the turn that copied them out
/// of the pool slept, and the client that had found no buffer was never asked again.
#[test]
fn buffers_that_were_copied_free_are_had_at_once_by_who_waits_for_them() {
    let stalled = vec![Action::StopReading, Action::Send(256), Action::Stay];
    let peers = vec![stalled, vec![Action::Send(100)]];
    for seed in 0..100 {
        let case = Case { buffers: 4, windows: [300, 40, 40], peers: peers.clone(), ..Case::default() };
        let outcome = Case { choices: noise(seed, 30), ..case }.run();
        assert_eq!(outcome.read, [256, 100]);
    }
}

/// Numbers without a pattern: an xorshift generator, so that the tests below do the same each time.
fn noise(seed: u64, count: usize) -> Vec<u32> {
    let mut state = seed * 2 + 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u32::try_from(state >> 40).expect("24 bits")
    })
    .take(count)
    .collect()
}

/// Found by `every_order_of_completions_is_survived`: with `--spin-us` the worker slept as long as it would
/// have without, after it had spun, and connections were closed so much later.
#[test]
fn a_timeout_is_not_made_longer_by_spinning() {
    let (spin, idle_timeout) = (Duration::from_micros(20), Some(Duration::from_millis(1)));
    let peers = vec![vec![Action::Send(100), Action::Await, Action::Stay]; 4];
    for seed in 0..20 {
        let base = Case { spin, idle_timeout, peers: peers.clone(), ..Case::default() };
        assert!(Case { choices: noise(seed, 1500), ..base }.run().counters.idle_closed > 0);
    }
}

/// Found by `every_order_of_completions_is_survived`: what waited for the first listener was given the last
/// slots, and an accept of the other, of which the cancel was on its way, brought one more.
#[test]
fn a_drain_of_two_listeners_keeps_the_limit() {
    let peers = vec![vec![Action::Send(100)]; 16];
    let base = Case { listeners: 2, backlog: 8, submissions: 5, max_connections: 3, ..Case::default() };
    for seed in 0..1000 {
        let choices = noise(seed, 1500);
        Case { drain_at: Some(0), peers: peers.clone(), choices, ..base.clone() }.run();
    }
}

/// The spill became tight and was not any more within a turn: who was asked in between was not received from
/// until the send that waited for its peer had ended.
#[test]
fn who_was_paused_for_a_part_of_a_turn_is_received_from_again() {
    let stalled = vec![Action::StopReading, Action::Send(3000)];
    let other = [Action::Send(2000), Action::Await].repeat(3);
    let peers = [vec![stalled; 4], vec![other; 4]].concat();
    let base = Case { splice: None, spill: 1, buffers: 16, windows: [500, 100, 100], ..Case::default() };
    for seed in 0..200 {
        Case { peers: peers.clone(), choices: noise(seed, 1500), ..base.clone() }.run();
    }
}

/// A property is worth what the simulation comes to: each unkind thing that a kernel may do happens to a
/// worker.
#[test]
fn the_simulated_kernel_does_to_workers_all_that_it_can() {
    let mut seen = Seen::default();
    for seed in 0..40 {
        let busy = vec![Action::Send(3000), Action::StopReading, Action::Send(70_000)];
        let short = vec![Action::Send(300), Action::Await, Action::Send(200), Action::Await, Action::Reset];
        let base = Case { choices: noise(seed, 3000), windows: [700; 3], completions: 5, ..Case::default() };
        let crowd = Case { max_connections: 100, peers: vec![short.clone(); 60], ..base.clone() };
        seen += crowd.run().seen;
        let slow = Case {
            max_connections: 2,
            buffers: 4,
            zerocopy_threshold: (seed % 2 == 0).then_some(100),
            peers: vec![busy, short.clone(), short.clone()],
            drain_at: Some(60),
            stop_after: Some(40),
            ..base.clone()
        };
        seen += slow.run().seen;
        let crew = Case { workers: 2, direct: false, mode: Mode::SinkSource, peers: vec![short; 6], ..base };
        seen += crew.run().seen;
    }
    assert!(seen.all(), "{seen:?}");
}

/// Found by `the_failure_of_a_worker_leaves_no_connection_open`: the kernel took nothing of the last
/// submission, and a close in it was forgotten.
#[test]
fn a_close_that_the_kernel_does_not_take_at_once_is_submitted_again() {
    let choices = vec![
        0, 5253, 4994, 0, 34205, 22670, 0, 2832, 0, 0, 280, 504, 516, 0, 0, 0, 28991, 1394, 12896, 943,
        11348, 0, 0, 15607, 0, 1410, 680, 0, 0, 10998, 0, 11, 3, 1448, 4, 0, 0, 21131, 0, 0, 0, 0, 0, 0, 32,
        0, 0, 0, 0, 56, 0, 115, 0, 0, 0, 0, 1048, 0, 0, 0, 0, 12069, 0, 0, 0, 0, 36271, 0, 0, 0, 0, 0, 132,
        37551, 0, 0, 0, 0, 6132, 1939, 0, 0, 5726, 0, 0, 0, 0, 0, 50715, 0, 0, 0, 0, 38380, 0, 0, 0, 0,
        20229,
    ];
    let peers = vec![vec![], vec![Action::Send(50), Action::Send(103)]];
    let case = Case {
        mode: Mode::AcceptClose,
        max_connections: 3,
        backlog: 0,
        listeners: 2,
        buffers: 1,
        buffer_size: 64,
        splice: Some(64),
        submissions: 8,
        completions: 8,
        direct: false,
        credit: None,
        windows: [167, 60, 60],
        workers: 2,
        peers,
        choices,
        fails_at: Some(3),
        ..Case::default()
    };
    case.run();
}
