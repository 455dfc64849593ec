//! The counters as OpenMetrics text.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::families::COUNTERS;
use crate::control::{Control, Phase};
use crate::report::CoreReport;
use crate::stats::{LiveCore, Sources};

/// Of everything that is this server's own.
const PREFIX: &str = "corelocal_server";

/// What `/metrics` answers with.
#[derive(Debug)]
pub(super) struct Exposition {
    registry: Registry,
}

impl Exposition {
    pub(super) fn new(cores: Vec<LiveCore>, control: Arc<Control>) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process { start: SystemTime::now() }));
        registry.sub_registry_with_prefix(PREFIX).register_collector(Box::new(Server { cores, control }));
        Self { registry }
    }

    /// All metrics as they are now.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // A String takes whatever is written.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// What every process publishes, under the name that every process uses.
#[derive(Debug)]
struct Process {
    start: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let start = self.start.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let help = "When the server started, in seconds since 1970.";
        let unit = Some(&Unit::Seconds);
        let encoder = encoder.encode_descriptor("process_start_time", help, unit, MetricType::Gauge)?;
        ConstGauge::new(start).encode(encoder)
    }
}

/// Reads the workers' counters whenever somebody asks.
#[derive(Debug)]
struct Server {
    cores: Vec<LiveCore>,
    control: Arc<Control>,
}

impl Collector for Server {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        encoder
            .encode_descriptor("build", "The server's version.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let help = "1 once the server accepts no more, 0 before.";
        let draining = ConstGauge::new(i64::from(self.control.phase() != Phase::Run));
        draining.encode(encoder.encode_descriptor("draining", help, None, MetricType::Gauge)?)?;

        // Read once, so that the families are of one moment.
        let cores: Vec<CoreReport> = self.cores.iter().map(CoreReport::read).collect();
        let open = cores.iter().map(|core| (core.core, core.counters.open));
        gauges(&mut encoder, "open_connections", None, "Connections open now.", open)?;
        let limits = self.cores.iter().map(|core| (core.cpu, core.max_connections.into()));
        let help = "The most connections that a core may have open.";
        gauges(&mut encoder, "connection_limit", None, help, limits)?;
        let spilled = cores.iter().map(|core| (core.core, core.counters.spill_bytes));
        let help = "Bytes in use now for peers that do not read, outside the receive buffers.";
        gauges(&mut encoder, "spill", Some(&Unit::Bytes), help, spilled)?;
        let limits = self.cores.iter().map(|core| (core.cpu, core.spill));
        let help = "The most bytes that a core may use for peers that do not read.";
        gauges(&mut encoder, "spill_limit", Some(&Unit::Bytes), help, limits)?;
        for family in COUNTERS {
            let unit = family.unit.as_ref();
            let mut metric =
                encoder.encode_descriptor(family.name, family.help, unit, MetricType::Counter)?;
            for core in &cores {
                let value = (family.value)(&core.counters);
                let labels = [("core", core.core)];
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        let help = "Accept samples of a core by the CPU that had received the segment, its own included.";
        sources(&mut encoder, "accept_source_samples", help, &cores, |core| &core.accept_from)?;
        let help = "Request samples of a core by the CPU that had received the segment, its own included.";
        sources(&mut encoder, "request_source_samples", help, &cores, |core| &core.request_from)
    }
}

/// A gauge with one value for each core.
fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    unit: Option<&Unit>,
    help: &str,
    values: impl Iterator<Item = (u32, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (core, value) in values {
        metric.encode_family(&[("core", core)])?.encode_gauge(&value)?;
    }
    Ok(())
}

/// A counter with one value for each core and each CPU that a sample of it came from.
fn sources(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    cores: &[CoreReport],
    sources: fn(&CoreReport) -> &Sources,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for core in cores {
        for (source, count) in sources(core).iter() {
            let labels = [("core", core.core.to_string()), ("cpu", source.to_string())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::LiveCounters;

    #[test]
    fn each_family_has_its_head_and_a_value_for_each_core() {
        let core = |cpu| LiveCore {
            cpu,
            max_connections: 10 + cpu,
            spill: 99,
            counters: Arc::new(LiveCounters::new(4)),
        };
        let cores = vec![core(3), core(0)];
        cores[0].counters.bytes_in.add(700);
        cores[1].counters.open.set(5);
        cores[1].counters.spill_bytes.set(16_384);
        cores[0].counters.count_accept_sample(Some(2), 3);
        cores[0].counters.count_accept_sample(None, 3);
        let exposition = Exposition::new(cores, Arc::new(Control::new()));
        let text = exposition.text();
        for expected in [
            "# HELP corelocal_server_received_bytes Bytes received.\n\
             # TYPE corelocal_server_received_bytes counter\n\
             # UNIT corelocal_server_received_bytes bytes\ncorelocal_server_received_bytes_total{core=\"3\"} \
             700\n\
             corelocal_server_received_bytes_total{core=\"0\"} 0\n",
            "# TYPE corelocal_server_open_connections gauge\ncorelocal_server_open_connections{core=\"3\"} \
             0\n\
             corelocal_server_open_connections{core=\"0\"} 5\n",
            "corelocal_server_connection_limit{core=\"3\"} 13\n",
            "# UNIT corelocal_server_spill_bytes bytes\ncorelocal_server_spill_bytes{core=\"3\"} 0\n\
             corelocal_server_spill_bytes{core=\"0\"} 16384\n",
            "corelocal_server_spill_limit_bytes{core=\"3\"} 99\n",
            "corelocal_server_accept_source_samples_total{core=\"3\",cpu=\"2\"} 1\n\
             corelocal_server_accept_source_samples_total{core=\"3\",cpu=\"unknown\"} 1\n# HELP",
            concat!("corelocal_server_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n"),
            "corelocal_server_draining 0\n",
            "# UNIT process_start_time_seconds seconds\nprocess_start_time_seconds 1",
        ] {
            assert!(text.contains(expected), "{expected}\nis not in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }
}
