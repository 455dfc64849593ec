//! Black-box tests of the `server` binary: every test starts a process of its own on a port the kernel
//! chooses, talks to it over loopback, and reads what it does from its report and from /proc.
//!
//! With `SERVER_WITHOUT=direct-descriptors,receive-credit` in the environment all servers get it as
//! `--without`: what they then use, kernels from 6.1 on have. With `SERVER_WITHOUT=splice` they copy all that
//! they send; the tests of [`splicing`] can then not pass.
//!
//! Each way in which io_uring servers are known to go wrong has a test here, against the real kernel, or (S)
//! in `server/src/worker/simulation`, against a simulated one that comes to every order of completions; most
//! have both:
//!
//! | what goes wrong | file: test |
//! |---|---|
//! | a late completion of a closed connection is taken for the next one in its slot | bursts: `new_connections_in_the_slots_of_reset_ones_get_their_own_bytes_only`; S: `bursts_around_the_limit_are_survived` |
//! | a buffer is given back that was not taken: one client's bytes reach another | resets: `storms_of_resets_do_not_touch_a_healthy_client`; S: `every_order_of_completions_is_survived` |
//! | "no buffer free" is taken for the end of the stream | bursts: `a_thousand_messages_waiting_at_once_are_all_echoed`; S: `every_order_of_completions_is_survived` |
//! | a multishot operation ends and nobody arms it again | `server/src/worker/ring.rs`: `an_accept_that_a_full_completion_queue_ends_is_armed_again_and_loses_nobody`; S: `bursts_around_the_limit_are_survived` |
//! | a full table of direct descriptors closes clients | limits: `bursts_up_to_the_limit_and_beyond_lose_nobody`, with single accepts and with multishot; S: `bursts_around_the_limit_are_survived` |
//! | out of descriptors, accepting spins | limits: `out_of_descriptors_clients_wait_and_are_served_when_there_are_some_again` |
//! | a close without a cancel: the client never sees the end | idle_timeout: `a_silent_connection_is_closed_with_a_fin_after_the_timeout`; S: `every_order_of_completions_is_survived` |
//! | two sends in flight, or a short one, lose or reorder bytes | echo: `pipelined_messages_of_random_sizes_survive_full_sockets`; S: `every_order_of_completions_is_survived` |
//! | a cancel loses what had been received already, or misses | slow_readers: `a_reader_that_stops_stops_being_read_from_and_later_gets_every_byte`; S: `every_order_of_completions_is_survived` |
//! | the end of a client's stream cuts off the answer | half_close: `a_short_message_and_the_end_together_are_answered_with_the_message_and_the_end`, `the_end_of_the_stream_behind_full_sockets_cuts_nothing_off`; S: `every_order_of_completions_is_survived` |
//! | a listener is closed with connections in its queue | shutdown: `clients_in_the_accept_queue_are_served_before_the_end`; S: `every_order_of_completions_is_survived` |
//! | the cores of one address are counted under one key | report: `each_core_of_one_address_has_its_own_counts` |
//! | a reader that does not read hoards the shared buffers | slow_readers: `two_hundred_stalled_readers_leave_buffers_of_a_small_pool_for_a_healthy_client`, spliced and not; S: `a_peer_that_does_not_read_has_a_bounded_queue_and_later_gets_every_byte` |
//! | a burst of accepts starves the connections that are there | bursts: `those_who_are_there_are_answered_before_the_last_of_a_burst` |
//! | submissions that did not fit are forgotten | `server/src/worker/ring.rs`: `requests_beyond_a_full_completion_queue_are_all_taken_and_answered`; bursts: `three_thousand_messages_in_pieces_waiting_at_once_on_one_core_are_all_echoed`; S: `every_order_of_completions_is_survived` |
//! | a listener that is gone makes the worker spin | failures: `a_listener_that_is_gone_ends_the_server_with_its_error_and_the_clients_in_order` |
//! | io_uring is forbidden here | start_errors: `where_io_uring_is_forbidden_or_missing_the_message_says_so` |
//! | a ring is used by another thread than the one that made it | `server/src/worker/ring.rs`: `a_ring_serves_only_the_thread_that_made_it` |
//! | what is kept for readers that do not read grows without end, and its want ends the server | spill: `at_its_bound_readers_that_stopped_are_reset_and_nobody_else`, `no_limit_of_memory_ends_a_server_whose_clients_do_not_read`; S: `every_order_of_completions_is_survived` |
//! | who reads slowly is reset because others, or it, have used up what is kept for readers that do not read | spill: `at_its_bound_slow_readers_get_every_byte_and_none_is_reset`; S: `who_reads_slowly_gets_every_byte` |
//! | memory grows with the number of connections | churn: `memory_does_not_grow_with_the_number_of_connections_served`; crowds: `ten_thousand_connections_are_echoed_exactly_and_cost_little_memory` |
//! | a reset is logged as if it were an error | resets: `storms_of_resets_do_not_touch_a_healthy_client` |

mod common;

mod accept_models;
mod buffers;
mod bursts;
mod churn;
mod crowds;
mod doctor;
mod echo;
mod failures;
mod garbage;
mod half_close;
mod idle_timeout;
mod limits;
mod listening;
mod live_table;
mod load_client;
mod memory;
mod metrics;
mod modes;
mod options;
mod overload;
mod pages;
mod privileges;
mod report;
mod resets;
mod shutdown;
mod slow_readers;
mod spill;
mod splicing;
mod start_errors;
mod steer_auto;
mod steering;
mod threads;
mod udp;
mod zero_copy;
