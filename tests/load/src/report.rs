//! The counts of all threads as one report, as text or JSON.

use std::io::{self, Write};
use std::net::SocketAddr;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tune::cpu_set::Cpu;

use crate::arrivals::Spacing;
use crate::counts::Counts;
pub use crate::latency::Latency;
use crate::stats::{ThreadStats, new_histogram};

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
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// Operations per second.
    pub rate_per_s: f64,
    /// Open loop: messages per second that were asked for; none in the closed loop.
    #[serde(default)]
    pub rate_asked_per_s: Option<u32>,
    /// Open loop: how their starts are spread.
    #[serde(default)]
    pub arrivals: Option<Spacing>,
    /// Time of an operation; in the open loop from when it should have started: corrected for coordinated
    /// omission.
    pub latency_us: Latency,
    /// Open loop: time of an operation from when it was started, not corrected.
    #[serde(default)]
    pub latency_raw_us: Option<Latency>,
    /// What `latency_us` is of: pairs of nanoseconds and how many operations took so long, with three
    /// significant digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub histogram_ns: Vec<(u64, u64)>,
    /// CPU time of the client's threads in `elapsed_s`, user and system, seconds.
    pub client_cpu_s: f64,
    /// The same per operation, microseconds; none if there was no operation.
    pub client_cpu_us_per_operation: Option<f64>,
    /// Share of `elapsed_s` in which the busiest thread worked or waited for its CPU: did neither sleep nor
    /// spin in vain.
    #[serde(default)]
    pub client_busy: f64,
    /// That is [`CLIENT_BOUND`] or more: the client may be what limits the rate, and the server may be
    /// faster.
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
        report.latency_raw_us = raw.as_ref().map(Latency::of);
        report.conclude(&latency);
        let recorded = latency.iter_recorded();
        report.histogram_ns =
            recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
        report
    }

    /// What several runs of a closed loop, which have taken `elapsed_s` together, come to. The histograms are
    /// added up: the percentiles are those of all operations; the sum itself keeps none.
    #[must_use]
    pub fn sum(
        mode: &str,
        address: SocketAddr,
        elapsed_s: f64,
        runs: impl IntoIterator<Item = Self>,
    ) -> Self {
        let mut sum = Self { elapsed_s, ..Self::empty(mode, address) };
        let mut latency = new_histogram();
        for run in runs {
            for (nanoseconds, count) in run.histogram_ns {
                latency.saturating_record_n(nanoseconds, count);
            }
            sum.counts += &run.counts;
            sum.client_cpu_s += run.client_cpu_s;
            sum.threads.extend(run.threads);
        }
        sum.conclude(&latency);
        sum
    }

    fn empty(mode: &str, address: SocketAddr) -> Self {
        Self {
            schema: SCHEMA,
            mode: mode.to_owned(),
            address,
            elapsed_s: 0.0,
            counts: Counts::default(),
            rate_per_s: 0.0,
            rate_asked_per_s: None,
            arrivals: None,
            latency_us: Latency::default(),
            latency_raw_us: None,
            histogram_ns: Vec::new(),
            client_cpu_s: 0.0,
            client_cpu_us_per_operation: None,
            client_busy: 0.0,
            client_bound: false,
            threads: Vec::new(),
        }
    }

    fn add(&mut self, thread: &ThreadStats) {
        self.elapsed_s = self.elapsed_s.max(thread.elapsed.as_secs_f64());
        self.client_cpu_s += thread.cpu_time.as_secs_f64();
        self.counts += &thread.counts;
        self.threads.push(ThreadReport {
            core: thread.core,
            connections: thread.counts.connections,
            operations: thread.counts.operations,
            cpu_s: thread.cpu_time.as_secs_f64(),
            busy_s: thread.busy.as_secs_f64(),
        });
    }

    /// Derives what depends on the sums.
    fn conclude(&mut self, latency: &Histogram<u64>) {
        let elapsed = self.elapsed_s.max(1e-9);
        let operations = self.counts.operations as f64;
        if operations > 0.0 {
            self.rate_per_s = operations / elapsed;
            self.client_cpu_us_per_operation = Some(self.client_cpu_s * 1e6 / operations);
        }
        self.client_busy = self.threads.iter().map(|thread| thread.busy_s / elapsed).fold(0.0, f64::max);
        self.client_bound = self.client_busy >= CLIENT_BOUND;
        self.latency_us = Latency::of(latency);
    }

    /// What went wrong, in one line; none if every connection was made and every byte came back right.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let (mut parts, counts) = (Vec::new(), &self.counts);
        let kinds = [
            (counts.bytes_wrong, "wrong bytes"),
            (counts.bytes_lost, "lost bytes"),
            (counts.bytes_extra, "bytes that were never sent"),
            (counts.datagrams_lost, "lost datagrams"),
            (counts.operations_missing, "operations missing"),
        ];
        parts.extend(
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")),
        );
        let errors = [(&counts.connect_errors, "to connect"), (&counts.io_errors, "on a connection")];
        for (kinds, what) in errors {
            parts.extend(kinds.iter().map(|(kind, count)| format!("{count} x {kind} {what}")));
        }
        if counts.connect_errors.contains_key("EADDRNOTAVAIL") {
            parts.push("no port is free: give more --sources, or close by reset".to_owned());
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Prints the report for people.
    ///
    /// # Errors
    /// If writing fails.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let counts = &self.counts;
        if let (Some(rate), Some(arrivals)) = (self.rate_asked_per_s, self.arrivals) {
            let (late, not_started) = (counts.operations_late, counts.operations_not_started);
            writeln!(
                out,
                "open loop: {rate} per second asked for, {arrivals:?}; {late} started late, {not_started} \
                 could not be started"
            )?;
        }
        writeln!(
            out,
            "{} {}: {} in {:.3} s = {:.0} per second, {} connections, {} failed",
            self.mode,
            self.address,
            counts.operations,
            self.elapsed_s,
            self.rate_per_s,
            counts.connections,
            counts.connections_failed
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
                "client CPU: {:.3} s, {per_operation:.2} us per operation; the busiest thread {busy:.0} % \
                 busy",
                self.client_cpu_s
            )?;
        }
        if self.client_bound {
            writeln!(out, "CLIENT-BOUND: the server may be faster than this; give the client more --cores")?;
        }
        if counts.datagrams_lost + counts.datagrams_again + counts.datagrams_overtaken > 0 {
            let (lost, again) = (counts.datagrams_lost, counts.datagrams_again);
            writeln!(
                out,
                "datagrams: {lost} lost, {again} came again, {} overtook",
                counts.datagrams_overtaken
            )?;
        }
        writeln!(
            out,
            "bytes back: {} ({} wrong, {} lost)",
            counts.bytes, counts.bytes_wrong, counts.bytes_lost
        )
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
        assert_eq!((report.counts.operations, report.rate_per_s), (40, 40.0));
        assert_eq!(report.client_cpu_us_per_operation, Some(50.0));
        assert!((report.latency_us.p50 - 100.0).abs() < 0.2, "{:?}", report.latency_us);
        assert_eq!(report.failure(), None);
    }

    /// Of nine fast runs and a slow one, a tenth of the operations is slow.
    #[test]
    fn the_percentiles_of_a_sum_are_those_of_all_operations() {
        let run = |microseconds| {
            let mut stats = ThreadStats::new(0, false);
            (0..100).for_each(|_| stats.count_operation(Duration::from_micros(microseconds), Duration::ZERO));
            Report::new("connect", "127.0.0.1:1".parse().unwrap(), vec![stats])
        };
        let runs = (0..10).map(|number| run(if number == 5 { 5000 } else { 10 }));
        let sum = Report::sum("all", "127.0.0.1:1".parse().unwrap(), 2.0, runs);
        assert_eq!((sum.counts.operations, sum.rate_per_s, sum.threads.len()), (1000, 500.0, 10));
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 0.002;
        assert!(near(sum.latency_us.p50, 10.0) && near(sum.latency_us.p90, 10.0), "{:?}", sum.latency_us);
        assert!(near(sum.latency_us.p99, 5000.0), "{:?}", sum.latency_us);
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
        bad.counts.count_connect_error(&rustix::io::Errno::ADDRNOTAVAIL.into());
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
        bad.counts.bytes_wrong = 3;
        bad.counts.count_connect_error(&rustix::io::Errno::CONNREFUSED.into());
        let report = Report::new("echo", "127.0.0.1:1".parse().unwrap(), vec![bad]);
        assert_eq!(report.failure().unwrap(), "3 wrong bytes, 1 x ECONNREFUSED to connect");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["connect_errors"]["ECONNREFUSED"], 1);
        assert!(json["client_cpu_us_per_operation"].is_null());
    }
}
