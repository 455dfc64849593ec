//! What is asked of the server: each option once, with its text in `--help`, as an option of the command line
//! and as a key of the file.

use serde::{Deserialize, Serialize};

use super::text::one_or_more;
use super::values::{
    Account, BufferCount, DeferAccept, DrainTimeout, IdleTimeout, ListenAddress, MessageSize, MetricsAddress,
    Microseconds, Number, OrOff, QueueLength, SpillSize, StatsInterval,
};
use super::{AcceptModel, Cores, Feature, Keepalive, Mode, Overload, Steer};

/// What is asked. `None`: nothing was said, and [`super::Config::default`] holds.
///
/// Where the default is nothing, `off` and `false` take back on the command line what a file asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Options {
    /// Address to listen on, IPv4 or IPv6; several times for several. Port 0: the kernel chooses [default:
    /// 127.0.0.1:7000]
    #[arg(long, value_name = "ADDR:PORT", help_heading = "Listening")]
    #[serde(default, deserialize_with = "one_or_more", skip_serializing_if = "Option::is_none")]
    pub listen: Option<Vec<ListenAddress>>,

    /// IPv6 addresses of --listen take no IPv4 connections (IPV6_V6ONLY) [default: false]
    #[arg(
        long,
        value_name = "true|false",
        help_heading = "Listening",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub v6only: Option<bool>,

    /// Connections that may wait to be accepted, for each listener: 1 to 65535. The kernel caps it at
    /// net.core.somaxconn [default: 4096]
    #[arg(long, value_name = "N", help_heading = "Listening")]
    pub backlog: Option<QueueLength>,

    /// Accept a connection when its first bytes are here, or after this time (TCP_DEFER_ACCEPT): 1s to 3600s,
    /// whole seconds, which the kernel rounds up to one of its retransmissions [default: off]
    #[arg(long, value_name = "TIME|off", help_heading = "Listening")]
    pub defer_accept: Option<OrOff<DeferAccept>>,

    /// Take data with the SYN (TCP_FASTOPEN) from this many connections at a time, for each listener: 1 to
    /// 65535. Needs net.ipv4.tcp_fastopen to be 2 or 3 [default: off]
    #[arg(long, value_name = "N|off", help_heading = "Listening")]
    pub fastopen: Option<OrOff<QueueLength>>,

    /// User to become once the listeners are bound, by name or number [default: whoever starts the server]
    #[arg(long, value_name = "USER", help_heading = "Privileges")]
    pub user: Option<Account>,

    /// Group to become once the listeners are bound, by name or number [default: that of --user]
    #[arg(long, value_name = "GROUP", help_heading = "Privileges")]
    pub group: Option<Account>,

    /// Cores to run on, a worker on each: a list as in taskset -c, such as 0-47 or 3,0-1; the order counts.
    /// "all": every CPU that this process may run on [default: all]
    #[arg(long, value_name = "LIST", help_heading = "Cores")]
    pub cores: Option<Cores>,

    /// Who accepts [default: per-core]
    #[arg(long, value_name = "WHO", value_enum, help_heading = "Cores")]
    pub accept: Option<AcceptModel>,

    /// How a SYN finds its listener, with --accept per-core [default: cpu]
    #[arg(long, value_name = "HOW", value_enum, help_heading = "Cores")]
    pub steer: Option<Steer>,

    /// Each worker's memory is on the NUMA node of its core [default: false]
    #[arg(
        long,
        value_name = "true|false",
        help_heading = "Cores",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub numa: Option<bool>,

    /// Echo datagrams (UDP) instead of accepting connections (TCP) [default: false]
    #[arg(
        long,
        value_name = "true|false",
        help_heading = "Service",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub udp: Option<bool>,

    /// What to do with a connection [default: echo]
    #[arg(long, value_name = "MODE", value_enum, help_heading = "Service")]
    pub mode: Option<Mode>,

    /// Bytes of a request of --mode sink-source: 1 to 1073741824 (1 GiB) [default: 64]
    #[arg(long, value_name = "BYTES", help_heading = "Service")]
    pub request_size: Option<MessageSize<1>>,

    /// Bytes of a response of --mode sink-source: 0 to 1073741824 (1 GiB) [default: 64]
    #[arg(long, value_name = "BYTES", help_heading = "Service")]
    pub response_size: Option<MessageSize<0>>,

    /// Most connections open at a time in the whole process, split evenly over the cores: 1 to 4294967295
    /// [default: 65536 for each core, or what the limit of open files allows]
    #[arg(long, value_name = "N", help_heading = "Connections")]
    pub max_connections: Option<Number<u32, 1, 4_294_967_295>>,

    /// What a client gets when its core has as many connections as it may have [default: queue]
    #[arg(long, value_name = "WHAT", value_enum, help_heading = "Connections")]
    pub overload: Option<Overload>,

    /// Close a connection on which nothing came or went for this long: 1ms to 1day [default: off]
    #[arg(long, value_name = "TIME|off", help_heading = "Connections")]
    pub idle_timeout: Option<OrOff<IdleTimeout>>,

    /// Probe idle connections (SO_KEEPALIVE): after 1s to 32767s, whole seconds; "host": after
    /// net.ipv4.tcp_keepalive_time [default: host]
    #[arg(long, value_name = "off|host|TIME", help_heading = "Connections")]
    pub keepalive: Option<Keepalive>,

    /// Send small segments at once (TCP_NODELAY), not after the answer to the one before [default: true]
    #[arg(long, value_name = "true|false", help_heading = "Connections", hide_possible_values = true)]
    pub nodelay: Option<bool>,

    /// Send without a copy (IORING_OP_SEND_ZC) from this many bytes on: 1 to 1073741824. Worth it on a real
    /// NIC only, from 16384 or so; on loopback it costs [default: off]
    #[arg(long, value_name = "BYTES|off", help_heading = "Connections")]
    pub zerocopy_threshold: Option<OrOff<MessageSize<1>>>,

    /// How long busy connections may go on after the first signal: 0s to 1day [default: 5s]
    #[arg(long, value_name = "TIME", help_heading = "Connections")]
    pub drain_timeout: Option<DrainTimeout>,

    /// Receive buffers of each core: a power of two from 1 to 32768. 64 with --udp unless said [default: 256]
    #[arg(long, value_name = "N", help_heading = "Memory")]
    pub buffers: Option<BufferCount>,

    /// Bytes of a receive buffer: 64 to 1048576 (1 MiB). 65527, the longest datagram, with --udp unless said
    /// [default: 16384]
    #[arg(long, value_name = "BYTES", help_heading = "Memory")]
    pub buffer_size: Option<Number<u32, 64, { 1 << 20 }>>,

    /// Most bytes, in the whole process, that were received from peers that do not read and are kept for them
    /// outside the receive buffers, split evenly over the cores: 1048576 to 17592186044416 (16 TiB), at least
    /// 1048576 for each. While half of a core's share is used, whose socket is full is not read from at all.
    /// When it is full all the same, and half of the core's buffers are taken, too, the connection is reset
    /// whose bytes have no place, and whose socket is full: give an --idle-timeout, which ends those who
    /// never read, where peers are not to be trusted [default: a quarter of the memory that the server may
    /// have, at least 1048576 for each core]
    #[arg(long, value_name = "BYTES", help_heading = "Memory")]
    pub spill: Option<SpillSize>,

    /// Receive buffers are in huge pages: --buffers times --buffer-size must be 2097152 bytes (2 MiB) or more
    /// [default: false]
    #[arg(
        long,
        value_name = "true|false",
        help_heading = "Memory",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub huge_pages: Option<bool>,

    /// Poll the NIC's queue instead of waiting for its interrupt (SO_BUSY_POLL, NAPI busy polling), for this
    /// long: 0 to 1000000 microseconds, or a time such as 50us; 0: not at all [default: 0]
    #[arg(long, value_name = "US|TIME", help_heading = "Latency")]
    pub busy_poll: Option<Microseconds>,

    /// Look for completions this many microseconds before sleeping: 0 to 1000000; 0: not at all. Takes the
    /// CPU's whole time [default: 0]
    #[arg(long, value_name = "N", help_heading = "Latency")]
    pub spin_us: Option<Number<u32, 0, 1_000_000>>,

    /// Serve the counters at /metrics (OpenMetrics) and /healthz. A port alone, such as 9100, is one of
    /// 127.0.0.1: who is to see them from outside needs an address here [default: off]
    #[arg(long, value_name = "[ADDR:]PORT|off", help_heading = "Reports")]
    pub metrics: Option<OrOff<MetricsAddress>>,

    /// Print a table of the cores to stderr this often: 100ms to 1day [default: off]
    #[arg(long, value_name = "TIME|off", help_heading = "Reports")]
    pub stats_interval: Option<OrOff<StatsInterval>>,

    /// Print the report as one JSON object on stdout, not as a table on stderr [default: false]
    #[arg(
        long,
        value_name = "true|false",
        help_heading = "Reports",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub json: Option<bool>,

    /// Do without a feature of the kernel, as on an older one; several times, or with commas, for several.
    /// Which there are is tried out at the start [default: none]
    #[arg(long, value_name = "FEATURE", value_enum, value_delimiter = ',', help_heading = "Kernel")]
    #[serde(default, deserialize_with = "one_or_more", skip_serializing_if = "Option::is_none")]
    pub without: Option<Vec<Feature>>,
}

/// Calls a macro with all fields. Where it makes an [`Options`] of them, none can be forgotten.
macro_rules! with_all_fields {
    ($macro:ident) => {
        $macro! {
            listen, v6only, backlog, defer_accept, fastopen, user, group, cores, accept, steer, numa, udp, mode,
            request_size, response_size, max_connections, overload, idle_timeout, keepalive, nodelay,
            zerocopy_threshold, drain_timeout, buffers, buffer_size, spill, huge_pages, busy_poll, spin_us,
            metrics, stats_interval, json, without
        }
    };
}

impl Options {
    /// These options, and what they do not say as in `file`. A list replaces the file's.
    #[must_use]
    pub fn merge(self, file: Self) -> Self {
        macro_rules! first_said {
            ($($field:ident),*) => { Self { $($field: self.$field.or(file.$field)),* } };
        }
        with_all_fields!(first_said)
    }

    /// The options that were said, as the fields are called.
    fn fields_said(&self) -> impl Iterator<Item = &'static str> {
        macro_rules! said {
            ($($field:ident),*) => { [$((stringify!($field), self.$field.is_some())),*] };
        }
        with_all_fields!(said).into_iter().filter(|(_, said)| *said).map(|(field, _)| field)
    }

    /// True if this option (its name without dashes before it) was said.
    #[must_use]
    pub fn says(&self, name: &str) -> bool {
        self.fields_said().any(|field| field.replace('_', "-") == name)
    }

    /// True if this option was said to be something: not `off`, nor `false` where that is the default.
    pub(super) fn asks_for(&self, name: &str) -> bool {
        let nothing = match name {
            "defer-accept" => self.defer_accept == Some(OrOff::Off),
            "fastopen" => self.fastopen == Some(OrOff::Off),
            "huge-pages" => self.huge_pages == Some(false),
            "idle-timeout" => self.idle_timeout == Some(OrOff::Off),
            "zerocopy-threshold" => self.zerocopy_threshold == Some(OrOff::Off),
            _ => false,
        };
        self.says(name) && !nothing
    }
}

#[cfg(test)]
mod tests;
