//! A configuration as the options that ask for it, none left out. Pure.

use super::values::{
    Account, BufferCount, ListenAddress, MetricsAddress, Microseconds, Number, OrOff, Seconds, Time,
};
use super::{Config, Options};

impl Options {
    /// The options that `config` obeys; what is `None` in it is not asked for.
    #[must_use]
    pub fn in_force(config: &Config) -> Self {
        let config = config.clone();
        let spin = u32::try_from(config.spin.as_micros()).unwrap_or(u32::MAX);
        Self {
            listen: Some(config.listen.into_iter().map(ListenAddress).collect()),
            v6only: Some(config.v6only),
            backlog: Some(Number(config.backlog)),
            defer_accept: Some(or_off(config.defer_accept, Seconds)),
            fastopen: Some(or_off(config.fastopen, Number)),
            user: config.user.map(Account),
            group: config.group.map(Account),
            cores: Some(config.cores),
            accept: Some(config.accept),
            steer: Some(config.steer),
            numa: Some(config.numa),
            udp: Some(config.udp),
            mode: Some(config.mode),
            request_size: Some(Number(config.request_size)),
            response_size: Some(Number(config.response_size)),
            max_connections: config.max_connections.map(Number),
            overload: Some(config.overload),
            idle_timeout: Some(or_off(config.idle_timeout, Time)),
            keepalive: Some(config.keepalive),
            nodelay: Some(config.nodelay),
            zerocopy_threshold: Some(or_off(config.zerocopy_threshold, Number)),
            drain_timeout: Some(Time(config.drain_timeout)),
            buffers: Some(BufferCount(config.buffers)),
            buffer_size: Some(Number(config.buffer_size)),
            spill: config.spill.map(Number),
            huge_pages: Some(config.huge_pages),
            busy_poll: Some(Microseconds(config.busy_poll)),
            spin_us: Some(Number(spin)),
            metrics: Some(or_off(config.metrics, MetricsAddress)),
            stats_interval: Some(or_off(config.stats_interval, Time)),
            json: None,
            without: Some(config.without),
        }
    }
}

fn or_off<T, V>(value: Option<T>, on: impl FnOnce(T) -> V) -> OrOff<V> {
    value.map_or(OrOff::Off, |value| OrOff::On(on(value)))
}
