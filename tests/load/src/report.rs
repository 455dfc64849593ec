//! The counts of all threads as one report, as text or JSON.

use std::io::{self, Write};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tune::cpu_set::Cpu;

use crate::arrivals::Spacing;
pub use crate::latency::Latency;
use crate::stats::{ErrorCounts, ThreadStats, new_histogram};

/// Version of the JSON form of [`Report`].
pub const SCHEMA: u32 = 1;

/// From this `client_busy` on a run is said to be bound by the client.
pub const CLIENT_BOUND: f64 = 0.95;

/// What a run has measured. Its JSON form is what `--json` prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The command: `echo`, `udp`, `connect`, `replay-article accept` or `replay-article exchange`.
    pub mode: String,
    /// The server.
    pub address: SocketAddr,
    /// Seconds from the common start to the last completed operation.
    pub elapsed_s: f64,
    /// Connections that were established.
    pub connections: u64,
    /// Messages that came back whole (echo), or connections that were made and closed (connect).
    pub operations: u64,
    /// Operations per second.
    pub rate_per_s: f64,
    /// Bytes of messages that came back.
    pub bytes: u64,
    /// Bytes that came back and are not what was sent at that offset.
    pub bytes_wrong: u64,
    /// Bytes that the kernel took for sending and that did not come back.
    pub bytes_lost: u64,
    /// Bytes that came back beyond what was sent.
    pub bytes_extra: u64,
    /// Operations that a count asked for and that were not completed.
    pub operations_missing: u64,
    /// Open loop: messages per second that were asked for; none in the closed loop.
    #[serde(default)]
    pub rate_asked_per_s: Option<u32>,
    /// Open loop: how their starts are spread.
    #[serde(default)]
    pub arrivals: Option<Spacing>,
    /// Open loop: messages that started later than they should have because their connection had enough under way. Their
    /// time counts from when they should have started.
    #[serde(default)]
    pub operations_late: u64,
    /// Open loop: messages that could not be started, because their connection had failed or had enough under way until the end.
    /// Each is in `latency_us` with the time that it had waited by then.
    #[serde(default)]
    pub operations_not_started: u64,
    /// UDP: datagrams that were not back within the timeout.
    #[serde(default)]
    pub datagrams_lost: u64,
    /// UDP: datagrams that came back a second time, or after the timeout.
    #[serde(default)]
    pub datagrams_again: u64,
    /// UDP: datagrams that came back before one that was sent earlier.
    #[serde(default)]
    pub datagrams_overtaken: u64,
    /// Connections that could not be established, or failed afterwards.
    #[serde(default)]
    pub connections_failed: u64,
    /// Connections that could not be established, by errno name.
    pub connect_errors: ErrorCounts,
    /// Connections that failed after they were established, by errno name.
    pub io_errors: ErrorCounts,
    /// Time of an operation; in the open loop from when it should have started: corrected for coordinated omission.
    pub latency_us: Latency,
    /// Open loop: time of an operation from when it was started, not corrected.
    #[serde(default)]
    pub latency_raw_us: Option<Latency>,
    /// CPU time of the client's threads in `elapsed_s`, user and system, seconds.
    pub client_cpu_s: f64,
    /// The same per operation, microseconds; none if there was no operation.
    pub client_cpu_us_per_operation: Option<f64>,
    /// Share of `elapsed_s` in which the busiest thread worked or waited for its CPU: did neither sleep nor spin in vain.
    #[serde(default)]
    pub client_busy: f64,
    /// That is [`CLIENT_BOUND`] or more: the client may be what limits the rate, and the server may be faster.
    #[serde(default)]
    pub client_bound: bool,
    /// Each thread's part.
    pub threads: Vec<ThreadReport>,
}

/// One thread's part of a [`Report`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ThreadReport {
    /// The CPU to which it was pinned.
    pub core: Cpu,
    /// Connections that it established.
    pub connections: u64,
    /// Operations that it completed.
    pub operations: u64,
    /// Its CPU time, seconds.
    pub cpu_s: f64,
    /// Seconds in which it worked or waited for its CPU.
    #[serde(default)]
    pub busy_s: f64,
}

impl Report {
    pub(crate) fn new(mode: &str, address: SocketAddr, threads: Vec<ThreadStats>) -> Self {
        let mut report = Self::empty(mode, address);
        let (mut latency, mut raw) = (new_histogram(), None);
        for thread in threads {
            latency.add(&thread.latency).expect("all histograms have the same bounds");
            if let Some(thread) = &thread.raw {
                let raw = raw.get_or_insert_with(new_histogram);
                raw.add(thread).expect("all histograms have the same bounds");
            }
            report.add(&thread);
        }
        report.latency_us = Latency::of(&latency);
        report.latency_raw_us = raw.as_ref().map(Latency::of);
        report.conclude();
        report
    }

    pub(crate) fn empty(mode: &str, address: SocketAddr) -> Self {
        Self {
            schema: SCHEMA,
            mode: mode.to_owned(),
            address,
            elapsed_s: 0.0,
            connections: 0,
            operations: 0,
            rate_per_s: 0.0,
            bytes: 0,
            bytes_wrong: 0,
            bytes_lost: 0,
            bytes_extra: 0,
            operations_missing: 0,
            rate_asked_per_s: None,
            arrivals: None,
            operations_late: 0,
            operations_not_started: 0,
            datagrams_lost: 0,
            datagrams_again: 0,
            datagrams_overtaken: 0,
            connections_failed: 0,
            connect_errors: ErrorCounts::new(),
            io_errors: ErrorCounts::new(),
            latency_us: Latency::default(),
            latency_raw_us: None,
            client_cpu_s: 0.0,
            client_cpu_us_per_operation: None,
            client_busy: 0.0,
            client_bound: false,
            threads: Vec::new(),
        }
    }

    fn add(&mut self, thread: &ThreadStats) {
        self.elapsed_s = self.elapsed_s.max(thread.elapsed.as_secs_f64());
        self.connections += thread.connections;
        self.operations += thread.operations;
        self.bytes += thread.bytes;
        self.bytes_wrong += thread.bytes_wrong;
        self.bytes_lost += thread.bytes_lost;
        self.bytes_extra += thread.bytes_extra;
        self.operations_missing += thread.operations_missing;
        self.operations_late += thread.operations_late;
        self.operations_not_started += thread.operations_not_started;
        self.datagrams_lost += thread.datagrams_lost;
        self.datagrams_again += thread.datagrams_again;
        self.datagrams_overtaken += thread.datagrams_overtaken;
        self.connections_failed += thread.connections_failed;
        self.client_cpu_s += thread.cpu_time.as_secs_f64();
        add_errors(&mut self.connect_errors, &thread.connect_errors);
        add_errors(&mut self.io_errors, &thread.io_errors);
        self.threads.push(ThreadReport {
            core: thread.core,
            connections: thread.connections,
            operations: thread.operations,
            cpu_s: thread.cpu_time.as_secs_f64(),
            busy_s: thread.busy.as_secs_f64(),
        });
    }

    /// Derives what depends on the sums.
    pub(crate) fn conclude(&mut self) {
        let elapsed = self.elapsed_s.max(1e-9);
        if self.operations > 0 {
            self.rate_per_s = self.operations as f64 / elapsed;
            self.client_cpu_us_per_operation = Some(self.client_cpu_s * 1e6 / self.operations as f64);
        }
        self.client_busy = self.threads.iter().map(|thread| thread.busy_s / elapsed).fold(0.0, f64::max);
        self.client_bound = self.client_busy >= CLIENT_BOUND;
    }

    /// What went wrong, in one line; none if every connection was made and every byte came back right.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let mut parts = Vec::new();
        let counts = [
            (self.bytes_wrong, "wrong bytes"),
            (self.bytes_lost, "lost bytes"),
            (self.bytes_extra, "bytes that were never sent"),
            (self.datagrams_lost, "lost datagrams"),
            (self.operations_missing, "operations missing"),
        ];
        parts.extend(
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
        );
        let errors = [(&self.connect_errors, "to connect"), (&self.io_errors, "on a connection")];
        for (counts, what) in errors {
            parts.extend(counts.iter().map(|(kind, count)| format!("{count} x {kind} {what}")));
        }
        if self.connect_errors.contains_key("EADDRNOTAVAIL") {
            parts.push("no port is free: give more --sources, or close by reset".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Prints the report for people.
    ///
    /// # Errors
    /// If writing fails.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        if let (Some(rate), Some(arrivals)) = (self.rate_asked_per_s, self.arrivals) {
            let (late, not_started) = (self.operations_late, self.operations_not_started);
            writeln!(
                out,
                "open loop: {rate} per second asked for, {arrivals:?}; {late} started late, {not_started} could not be started"
            )?;
        }
        writeln!(
            out,
            "{} {}: {} in {:.3} s = {:.0} per second, {} connections, {} failed",
            self.mode,
            self.address,
            self.operations,
            self.elapsed_s,
            self.rate_per_s,
            self.connections,
            self.connections_failed
        )?;
        match &self.latency_raw_us {
            None => self.latency_us.print(out, "latency us")?,
            Some(raw) => {
                self.latency_us.print(out, "latency us, from the intended start")?;
                raw.print(out, "latency us, from the start, raw")?;
            }
        }
        if let Some(per_operation) = self.client_cpu_us_per_operation {
            let busy = self.client_busy * 100.0;
            writeln!(
                out,
                "client CPU: {:.3} s, {per_operation:.2} us per operation; the busiest thread {busy:.0} % busy",
                self.client_cpu_s
            )?;
        }
        if self.client_bound {
            writeln!(out, "CLIENT-BOUND: the server may be faster than this; give the client more --cores")?;
        }
        if self.datagrams_lost + self.datagrams_again + self.datagrams_overtaken > 0 {
            let (lost, again) = (self.datagrams_lost, self.datagrams_again);
            writeln!(
                out,
                "datagrams: {lost} lost, {again} came again, {} overtook",
                self.datagrams_overtaken
            )?;
        }
        writeln!(out, "bytes back: {} ({} wrong, {} lost)", self.bytes, self.bytes_wrong, self.bytes_lost)
    }
}

pub(crate) fn add_errors(sum: &mut ErrorCounts, counts: &ErrorCounts) {
    for (kind, count) in counts {
        *sum.entry(kind.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn thread(core: Cpu, milliseconds: u64, operations: u64) -> ThreadStats {
        let mut stats = ThreadStats::new(core, false);
        (0..operations).for_each(|_| stats.count_operation(Duration::from_micros(100), Duration::ZERO));
        stats.elapsed = Duration::from_millis(milliseconds);
        stats.cpu_time = Duration::from_millis(1);
        stats
    }

    #[test]
    fn threads_are_added_and_the_rate_is_over_the_longest() {
        let report = Report::new(
            "echo",
            "127.0.0.1:1".parse().unwrap(),
            vec![thread(0, 500, 10), thread(1, 1000, 30)],
        );
        assert_eq!((report.operations, report.rate_per_s), (40, 40.0));
        assert_eq!(report.client_cpu_us_per_operation, Some(50.0));
        assert!((report.latency_us.p50 - 100.0).abs() < 0.2, "{:?}", report.latency_us);
        assert_eq!(report.failure(), None);
    }

    #[test]
    fn a_thread_without_rest_bounds_the_run_and_the_report_says_so() {
        let busy =
            |milliseconds| ThreadStats { busy: Duration::from_millis(milliseconds), ..thread(0, 1000, 10) };
        for (milliseconds, bound) in [(940, false), (960, true)] {
            let address = "127.0.0.1:1".parse().unwrap();
            let report = Report::new("echo", address, vec![busy(100), busy(milliseconds)]);
            let mut text = Vec::new();
            report.print(&mut text).unwrap();
            assert_eq!((report.client_bound, report.failure()), (bound, None), "{}", report.client_busy);
            assert_eq!(String::from_utf8(text).unwrap().contains("CLIENT-BOUND"), bound);
        }
    }

    #[test]
    fn running_out_of_ports_says_what_to_do() {
        let mut bad = thread(0, 1, 0);
        bad.count_connect_error(&rustix::io::Errno::ADDRNOTAVAIL.into());
        let report = Report::new("connect", "127.0.0.1:1".parse().unwrap(), vec![bad]);
        assert!(
            report
                .failure()
                .unwrap()
                .contains("EADDRNOTAVAIL to connect, no port is free: give more --sources")
        );
    }

    #[test]
    fn a_failure_names_every_kind() {
        let mut bad = thread(0, 1, 0);
        bad.bytes_wrong = 3;
        bad.count_connect_error(&rustix::io::Errno::CONNREFUSED.into());
        let report = Report::new("echo", "127.0.0.1:1".parse().unwrap(), vec![bad]);
        assert_eq!(report.failure().unwrap(), "3 wrong bytes, 1 x ECONNREFUSED to connect");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["connect_errors"]["ECONNREFUSED"], 1);
        assert!(json["client_cpu_us_per_operation"].is_null());
    }
}
