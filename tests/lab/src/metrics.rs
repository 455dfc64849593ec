//! The rows of the table: what each is, and how a measurement gives it. Pure.
//!
//! A row that starts with `server:` or `client:` is of that process, one with `machine:` of everything that
//! ran on the machine at the time.

use tune::cpu_set::{Cpu, CpuSet};
use tune::measure::perf_events::PerfReading;
use tune::measure::softnet::SoftnetStat;

use crate::measurement::Measurement;

/// Up to so many CPUs, each one's share of the softirqs is a row; beyond, only the least and the greatest
/// share.
const CPUS_SHOWN: usize = 8;

/// How a value is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A share of 1, printed as per cent.
    Share,
    /// A number, with as many decimals as it needs for three digits.
    Number,
}

/// A row's value in one measurement; none if the machine does not give it.
type Value = dyn Fn(&Measurement) -> Option<f64>;

/// One row.
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    value: Box<Value>,
}

impl Metric {
    fn new(
        name: impl Into<String>,
        unit: Unit,
        value: impl Fn(&Measurement) -> Option<f64> + 'static,
    ) -> Self {
        Self { name: name.into(), unit, value: Box::new(value) }
    }

    /// The value in one measurement; none if the machine does not give it.
    pub(crate) fn value(&self, measurement: &Measurement) -> Option<f64> {
        (self.value)(measurement)
    }
}

/// All rows, in the order of the table.
pub(crate) fn metrics(cpus: &CpuSet) -> Vec<Metric> {
    let mut metrics = vec![
        Metric::new("accept-local", Unit::Share, |m| m.server.total.accept_local),
        Metric::new("request-local", Unit::Share, |m| m.server.total.request_local),
        Metric::new("connections per second", Unit::Number, |m| Some(m.connect.rate_per_s)),
        Metric::new("requests per second", Unit::Number, |m| Some(m.exchange.rate_per_s)),
        Metric::new("latency p50, us", Unit::Number, |m| Some(m.exchange.latency_us.p50)),
        Metric::new("latency p99, us", Unit::Number, |m| Some(m.exchange.latency_us.p99)),
        perf("server: CPU us per request", 1e-3, |perf| perf.task_clock_ns),
        Metric::new("client: CPU us per request", Unit::Number, |m| m.exchange.client_cpu_us_per_operation),
        perf("server: context switches per 1000 requests", 1e3, |perf| perf.context_switches),
        Metric::new("server: CPU migrations", Unit::Number, |m| as_f64(m.server_perf.cpu_migrations)),
        Metric::new("server: page faults", Unit::Number, |m| as_f64(m.server_perf.page_faults)),
        perf("server: cycles per request", 1.0, |perf| perf.cycles),
        perf("server: instructions per request", 1.0, |perf| perf.instructions),
        perf("server: cache misses per request", 1.0, |perf| perf.cache_misses),
        perf("server: branch misses per request", 1.0, |perf| perf.branch_misses),
        Metric::new("machine: NET_RX softirqs per request", Unit::Number, |m| {
            per_request(m, m.net_rx.values().sum::<u64>())
        }),
    ];
    metrics.extend(net_rx_shares(cpus));
    metrics.extend([
        softnet("machine: packets processed per request", 1.0, |stat| stat.processed),
        softnet("machine: RPS interrupts per 1000 requests", 1e3, |stat| stat.received_rps),
        Metric::new("machine: packets dropped, backlog full", Unit::Number, |m| sum(m, |stat| stat.dropped)),
        Metric::new("machine: softirqs out of budget", Unit::Number, |m| sum(m, |stat| stat.time_squeeze)),
    ]);
    metrics
}

fn perf(name: &str, factor: f64, count: fn(&PerfReading) -> Option<u64>) -> Metric {
    Metric::new(name, Unit::Number, move |m| Some(per_request(m, count(&m.server_perf)?)? * factor))
}

fn softnet(name: &str, factor: f64, count: fn(&SoftnetStat) -> u32) -> Metric {
    Metric::new(name, Unit::Number, move |m| Some(sum(m, count)? * factor / requests(m)?))
}

fn net_rx_shares(cpus: &CpuSet) -> Vec<Metric> {
    let share = |m: &Measurement, cpu: Cpu| {
        let total: u64 = m.net_rx.values().sum();
        (total > 0).then(|| *m.net_rx.get(&cpu).unwrap_or(&0) as f64 / total as f64)
    };
    if cpus.len() <= CPUS_SHOWN {
        let row = |cpu| {
            Metric::new(format!("machine: NET_RX softirqs on CPU {cpu}"), Unit::Share, move |m| share(m, cpu))
        };
        return cpus.iter().map(row).collect();
    }
    let extreme = |name: &str, pick: fn(f64, f64) -> f64| {
        let cpus = cpus.clone();
        Metric::new(name, Unit::Share, move |m| {
            let shares: Option<Vec<f64>> = cpus.iter().map(|cpu| share(m, cpu)).collect();
            shares?.into_iter().reduce(pick)
        })
    };
    vec![
        extreme("machine: NET_RX softirqs, CPU with the fewest", f64::min),
        extreme("machine: NET_RX softirqs, CPU with the most", f64::max),
    ]
}

fn sum(measurement: &Measurement, count: fn(&SoftnetStat) -> u32) -> Option<f64> {
    Some(measurement.softnet.iter().map(|stat| f64::from(count(stat))).sum())
}

fn per_request(measurement: &Measurement, count: u64) -> Option<f64> {
    Some(count as f64 / requests(measurement)?)
}

fn requests(measurement: &Measurement) -> Option<f64> {
    let requests = measurement.exchange.counts.operations;
    (requests > 0).then_some(requests as f64)
}

fn as_f64(count: Option<u64>) -> Option<f64> {
    count.map(|count| count as f64)
}
