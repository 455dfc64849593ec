//! Options that do not go together. What has no effect is refused too: who writes it expects one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::values::{Checked, ListenAddress};
use super::{AcceptModel, Config, Feature, Mode, Options, Steer};
use crate::udp;

/// Bytes of the smallest huge page of any architecture the server runs on (x86-64, and arm64 with 4 KiB
/// pages).
const HUGE_PAGE: u64 = 2 << 20;

/// Why options do not go together, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Contradiction {
    text: String,
    options: Vec<&'static str>,
}

impl Contradiction {
    fn new(options: &[&'static str], text: String) -> Self {
        Self { text, options: options.to_vec() }
    }

    /// The names of the options it is about, without dashes before them.
    #[must_use]
    pub fn options(&self) -> &[&'static str] {
        &self.options
    }
}

/// What another option leaves without effect.
struct Idle {
    /// The option that does it, with its value.
    by: &'static str,
    /// Its name.
    option: &'static str,
    /// Whether it is on.
    when: fn(&Config) -> bool,
    why: &'static str,
    idle: &'static [&'static str],
    /// Of `--without`: what the server does without anyway.
    unused: &'static [Feature],
}

const IDLE: &[Idle] = &[
    Idle {
        by: "--udp",
        option: "udp",
        when: |config| config.udp,
        why: "datagrams have no connections",
        idle: &[
            "accept",
            "backlog",
            "defer-accept",
            "fastopen",
            "idle-timeout",
            "keepalive",
            "max-connections",
            "nodelay",
            "overload",
            "spill",
            "zerocopy-threshold",
        ],
        unused: &[Feature::DirectDescriptors, Feature::ReceiveCredit, Feature::Splice],
    },
    Idle {
        by: "--accept single",
        option: "accept",
        when: |config| config.accept == AcceptModel::Single,
        why: "connections that go from ring to ring are no direct descriptors",
        idle: &[],
        unused: &[Feature::DirectDescriptors],
    },
    Idle {
        by: "--zerocopy-threshold",
        option: "zerocopy-threshold",
        when: |config| config.zerocopy_threshold.is_some(),
        why: "nothing is spliced",
        idle: &[],
        unused: &[Feature::Splice],
    },
    Idle {
        by: "--mode accept-close",
        option: "mode",
        when: |config| config.mode == Mode::AcceptClose,
        why: "connections are reset as soon as they are accepted",
        idle: &[
            "buffer-size",
            "buffers",
            "huge-pages",
            "idle-timeout",
            "keepalive",
            "nodelay",
            "overload",
            "spill",
            "zerocopy-threshold",
        ],
        unused: &[Feature::ReceiveCredit, Feature::Splice],
    },
    Idle {
        by: "--mode discard",
        option: "mode",
        when: |config| config.mode == Mode::Discard,
        why: "nothing is sent",
        idle: &["nodelay", "spill", "zerocopy-threshold"],
        unused: &[Feature::Splice],
    },
    Idle {
        by: "--mode sink-source",
        option: "mode",
        when: |config| config.mode == Mode::SinkSource,
        why: "nothing that is received is kept, or sent",
        idle: &["spill"],
        unused: &[Feature::Splice],
    },
    Idle {
        by: "--response-size 0",
        option: "response-size",
        when: |config| config.mode == Mode::SinkSource && config.response_size == 0,
        why: "nothing is sent",
        idle: &["nodelay", "zerocopy-threshold"],
        unused: &[],
    },
];

impl Options {
    /// The configuration that is asked for.
    ///
    /// # Errors
    /// If options contradict each other, or one has no effect beside the others.
    pub fn check(&self) -> Result<Config, Contradiction> {
        let config = self.with_defaults();
        self.check_service(&config)?;
        self.check_idle(&config)?;
        check_accept(&config)?;
        check_listen(&config)?;
        check_huge_pages(&config)?;
        Ok(config)
    }

    /// Everything that is not said as in [`Config::default`].
    pub(super) fn with_defaults(&self) -> Config {
        let (asked, default) = (self.clone(), Config::default());
        let accept = asked.accept.unwrap_or(default.accept);
        // One socket: there is nothing to steer.
        let steer = if accept == AcceptModel::PerCore { default.steer } else { Steer::Hash };
        let (buffers, buffer_size) = match asked.udp {
            Some(true) => (udp::DEFAULT_BUFFERS, udp::DEFAULT_BUFFER_SIZE),
            _ => (default.buffers, default.buffer_size),
        };
        let listen = |addresses: Vec<ListenAddress>| addresses.into_iter().map(Checked::plain).collect();
        Config {
            udp: asked.udp.unwrap_or(default.udp),
            mode: asked.mode.unwrap_or(default.mode),
            request_size: plain(asked.request_size, default.request_size),
            response_size: plain(asked.response_size, default.response_size),
            listen: asked.listen.map_or(default.listen, listen),
            v6only: asked.v6only.unwrap_or(default.v6only),
            cores: asked.cores.unwrap_or(default.cores),
            accept,
            steer: asked.steer.unwrap_or(steer),
            overload: asked.overload.unwrap_or(default.overload),
            backlog: plain(asked.backlog, default.backlog),
            max_connections: asked.max_connections.map(Checked::plain).or(default.max_connections),
            idle_timeout: plain(asked.idle_timeout, default.idle_timeout),
            buffers: plain(asked.buffers, buffers),
            buffer_size: plain(asked.buffer_size, buffer_size),
            spill: asked.spill.map(Checked::plain).or(default.spill),
            busy_poll: plain(asked.busy_poll, default.busy_poll),
            spin: asked.spin_us.map_or(default.spin, |number| Duration::from_micros(number.plain().into())),
            nodelay: asked.nodelay.unwrap_or(default.nodelay),
            keepalive: asked.keepalive.unwrap_or(default.keepalive),
            defer_accept: plain(asked.defer_accept, default.defer_accept),
            fastopen: plain(asked.fastopen, default.fastopen),
            zerocopy_threshold: plain(asked.zerocopy_threshold, default.zerocopy_threshold),
            numa: asked.numa.unwrap_or(default.numa),
            huge_pages: asked.huge_pages.unwrap_or(default.huge_pages),
            user: asked.user.map(Checked::plain).or(default.user),
            group: asked.group.map(Checked::plain).or(default.group),
            metrics: plain(asked.metrics, default.metrics),
            stats_interval: plain(asked.stats_interval, default.stats_interval),
            without: asked.without.unwrap_or(default.without),
            drain_timeout: plain(asked.drain_timeout, default.drain_timeout),
        }
    }

    fn check_service(&self, config: &Config) -> Result<(), Contradiction> {
        if config.udp && config.mode != Mode::Echo {
            let text = "--udp echoes datagrams and does nothing else: leave --mode out, or --udp".to_owned();
            return Err(Contradiction::new(&["udp", "mode"], text));
        }
        for size in ["request-size", "response-size"] {
            if self.says(size) && config.mode != Mode::SinkSource {
                let text = format!(
                    "--{size} has no effect without --mode sink-source: give --mode sink-source, or leave \
                     --{size} out"
                );
                return Err(Contradiction::new(&[size, "mode"], text));
            }
        }
        Ok(())
    }

    fn check_idle(&self, config: &Config) -> Result<(), Contradiction> {
        for Idle { by, option, why, idle, unused, .. } in IDLE.iter().filter(|rule| (rule.when)(config)) {
            let name = idle.iter().find(|name| self.asks_for(name));
            let name = name.map(|name| (*name, format!("--{name}")));
            let feature = unused.iter().find(|feature| config.without.contains(feature));
            let feature = feature.map(|feature| ("without", format!("--without {}", feature.name())));
            if let Some((name, asked)) = name.or(feature) {
                let text = format!("{asked} has no effect with {by}: {why}; leave one of the two out");
                return Err(Contradiction::new(&[name, option], text));
            }
        }
        Ok(())
    }
}

/// `--steer` chooses among the listeners of the cores.
fn check_accept(config: &Config) -> Result<(), Contradiction> {
    let model = match config.accept {
        AcceptModel::PerCore => return Ok(()),
        AcceptModel::Shared => "shared",
        AcceptModel::Single => "single",
    };
    if config.steer == Steer::Hash {
        return Ok(());
    }
    let steer = config.steer.name();
    let text = format!(
        "--accept {model} and --steer {steer} contradict each other: with one listening socket there is \
         nothing to steer; leave --steer out, or give --accept per-core"
    );
    Err(Contradiction::new(&["accept", "steer"], text))
}

fn check_listen(config: &Config) -> Result<(), Contradiction> {
    if config.listen.is_empty() {
        let text = "--listen names no address: give one, or leave it out for 127.0.0.1:7000".to_owned();
        return Err(Contradiction::new(&["listen"], text));
    }
    for (index, address) in config.listen.iter().enumerate() {
        if config.listen[..index].iter().any(|other| same(*address, *other)) {
            let text = format!("--listen {address} is given twice: leave one out");
            return Err(Contradiction::new(&["listen"], text));
        }
    }
    if config.v6only && !config.listen.iter().any(SocketAddr::is_ipv6) {
        let text = "--v6only has no effect without an IPv6 address: give one, such as --listen [::]:7000, or \
                    leave --v6only out";
        return Err(Contradiction::new(&["v6only", "listen"], text.to_owned()));
    }
    // A datagram's answer comes from the address of the socket, which makes a difference.
    if config.udp { Ok(()) } else { check_covered(config) }
}

/// With TCP an address that another one takes the connections of can't be bound, or is of no use.
fn check_covered(config: &Config) -> Result<(), Contradiction> {
    for address in &config.listen {
        let clash = |metrics: &SocketAddr| {
            same(*address, *metrics) || covers(address, metrics, config) || covers(metrics, address, config)
        };
        if let Some(metrics) = config.metrics.filter(|metrics| metrics.port() != 0 && clash(metrics)) {
            let text = format!(
                "--metrics {metrics} and --listen {address} take the same port: give --metrics another one"
            );
            return Err(Contradiction::new(&["metrics", "listen"], text));
        }
        let Some(wildcard) = config.listen.iter().find(|other| covers(other, address, config)) else {
            continue;
        };
        let both = format!("--listen {wildcard} takes the connections of --listen {address} too");
        if wildcard.is_ipv6() && address.is_ipv4() {
            let text = format!("{both}: give --v6only, or leave {address} out");
            return Err(Contradiction::new(&["listen", "v6only"], text));
        }
        return Err(Contradiction::new(&["listen"], format!("{both}: leave {address} out")));
    }
    Ok(())
}

fn plain<V: Checked>(value: Option<V>, default: V::Plain) -> V::Plain {
    value.map_or(default, V::plain)
}

/// True if a socket of `wildcard`, another address, takes what comes to `address` too.
fn covers(wildcard: &SocketAddr, address: &SocketAddr, config: &Config) -> bool {
    let family = wildcard.is_ipv4() == address.is_ipv4() || (wildcard.is_ipv6() && !config.v6only);
    let port = wildcard.port() == address.port() && address.port() != 0;
    wildcard != address && wildcard.ip().is_unspecified() && family && port
}

fn check_huge_pages(config: &Config) -> Result<(), Contradiction> {
    let bytes = u64::from(config.buffers) * u64::from(config.buffer_size);
    if !config.huge_pages || bytes >= HUGE_PAGE {
        return Ok(());
    }
    let text = format!(
        "--huge-pages needs {HUGE_PAGE} bytes of receive buffers or more, and --buffers {} times \
         --buffer-size {} is {bytes}: raise one of the two, or leave --huge-pages out",
        config.buffers, config.buffer_size
    );
    Err(Contradiction::new(&["huge-pages", "buffers", "buffer-size"], text))
}

/// True if two addresses are one: `[::ffff:192.0.2.1]:80` is `192.0.2.1:80`.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    let scope = |address: SocketAddr| match address {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    let key = |address: SocketAddr| -> (IpAddr, u16, u32) {
        (address.ip().to_canonical(), address.port(), scope(address))
    };
    key(one) == key(other)
}

#[cfg(test)]
mod tests;
