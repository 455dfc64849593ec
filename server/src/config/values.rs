//! The values of options. What a type cannot hold is out of range, and its error says what is in range. Pure.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use humantime::{format_duration, parse_duration};

use super::Keepalive;
use crate::worker::{LEAST_SPILL, MAX_BUFFERS};

const SECOND: u32 = 1000;
const DAY: u32 = 24 * 60 * 60 * SECOND;

/// `--idle-timeout`: how long nothing may come or go.
pub type IdleTimeout = Time<1, DAY>;
/// `--stats-interval`: faster than that nobody reads.
pub type StatsInterval = Time<100, DAY>;
/// `--drain-timeout`: none is as good as any.
pub type DrainTimeout = Time<0, DAY>;
/// `--defer-accept`: an hour is below what the kernel can count in retransmissions (255, two minutes apart).
pub type DeferAccept = Seconds<1, 3600>;
/// `--keepalive`: the kernel's limit, `MAX_TCP_KEEPIDLE`.
pub(super) type KeepaliveTime = Seconds<1, 32_767>;
/// Bytes of a message of `--mode sink-source`, up to 1 GiB.
pub type MessageSize<const MIN: u64> = Number<u32, MIN, { 1 << 30 }>;
/// `--spill`: for one core at least; more than 16 TiB no host has to spare.
pub type SpillSize = Number<u64, LEAST_SPILL, { 1 << 44 }>;
/// Length of a queue of a listener.
pub type QueueLength = Number<u16, 1, 65_535>;

/// Why a text is no value of an option; the option is named by whoever knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub struct Refused(String);

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<T, const MIN: u64, const MAX: u64>(pub(super) T);

/// A time with its unit, from `MIN` to `MAX` milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time<const MIN: u32, const MAX: u32>(pub(super) Duration);

/// A time with its unit, from `MIN` to `MAX` whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds<const MIN: u32, const MAX: u32>(pub(super) Duration);

/// A time up to a second in whole microseconds; a number without a unit is microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Microseconds(pub(super) Duration);

/// A number of buffers: a power of two up to [`MAX_BUFFERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferCount(pub(super) u16);

/// An address and a port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub(super) SocketAddr);

/// An address and a port, or a port alone, which is one of 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsAddress(pub(super) SocketAddr);

/// The name or number of a user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account(pub(super) String);

/// What can be taken back with `off`, as where a file asks for it and the command line does not want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrOff<T> {
    /// It is not wanted.
    Off,
    /// It is.
    On(T),
}

/// A checked value, and the plain one that it holds.
pub trait Checked {
    /// The type of a [`super::Config`]'s field.
    type Plain;

    /// The plain value.
    fn plain(self) -> Self::Plain;
}

macro_rules! checked {
    ($([$($parameter:tt)*] $type:ty: $plain:ty;)*) => {$(
        impl<$($parameter)*> Checked for $type {
            type Plain = $plain;

            fn plain(self) -> $plain {
                self.0
            }
        }
    )*};
}

checked! {
    [T, const MIN: u64, const MAX: u64] Number<T, MIN, MAX>: T;
    [const MIN: u32, const MAX: u32] Time<MIN, MAX>: Duration;
    [const MIN: u32, const MAX: u32] Seconds<MIN, MAX>: Duration;
    [] Microseconds: Duration;
    [] BufferCount: u16;
    [] ListenAddress: SocketAddr;
    [] MetricsAddress: SocketAddr;
    [] Account: String;
}

impl<T: Checked> Checked for OrOff<T> {
    type Plain = Option<T::Plain>;

    fn plain(self) -> Self::Plain {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value.plain()),
        }
    }
}

impl<T: TryFrom<u64>, const MIN: u64, const MAX: u64> FromStr for Number<T, MIN, MAX> {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let number: Option<u64> = text.parse().ok().filter(|number| (MIN..=MAX).contains(number));
        number
            .and_then(|number| T::try_from(number).ok())
            .map(Self)
            .ok_or_else(|| Refused(format!("a whole number from {MIN} to {MAX}")))
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Time<MIN, MAX> {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let [min, max] = [MIN, MAX].map(|limit| Duration::from_millis(limit.into()));
        let time = parse_duration(text).ok().filter(|time| (min..=max).contains(time));
        let (min, max) = (format_duration(min), format_duration(max));
        time.map(Self).ok_or_else(|| Refused(format!("a time from {min} to {max}, such as 5s or 500ms")))
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Seconds<MIN, MAX> {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let good =
            |time: &Duration| time.subsec_nanos() == 0 && (MIN.into()..=MAX.into()).contains(&time.as_secs());
        let time = parse_duration(text).ok().filter(good);
        time.map(Self)
            .ok_or_else(|| Refused(format!("a time of whole seconds from {MIN}s to {MAX}s, such as 5s")))
    }
}

impl FromStr for Microseconds {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let number = text.parse().ok().map(Duration::from_micros);
        let good =
            |time: &Duration| time.subsec_nanos().is_multiple_of(1000) && *time <= Duration::from_secs(1);
        number.or_else(|| parse_duration(text).ok()).filter(good).map(Self).ok_or_else(|| {
            Refused("whole microseconds from 0 to 1000000, or such a time with its unit, as 50us".to_owned())
        })
    }
}

impl FromStr for BufferCount {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let good = |count: &u16| count.is_power_of_two() && u32::from(*count) <= MAX_BUFFERS;
        let count = text.parse().ok().filter(good);
        count.map(Self).ok_or_else(|| Refused(format!("a power of two from 1 to {MAX_BUFFERS}")))
    }
}

impl FromStr for ListenAddress {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        text.parse()
            .map(Self)
            .map_err(|_| Refused("ADDRESS:PORT, such as 127.0.0.1:7000 or [::1]:7000".to_owned()))
    }
}

impl FromStr for MetricsAddress {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let port = text.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        port.or_else(|| text.parse().ok()).map(Self).ok_or_else(|| {
            Refused(
                "ADDRESS:PORT, such as 127.0.0.1:9100 or [::1]:9100, or a port, as 9100, of 127.0.0.1"
                    .to_owned(),
            )
        })
    }
}

impl FromStr for Account {
    type Err = Refused;

    /// A colon separates the fields of passwd(5), and nothing in it is a control character.
    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.is_empty() || text.contains(|letter: char| letter == ':' || letter.is_control()) {
            return Err(Refused("a name as in /etc/passwd or /etc/group, or a number".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl<T: FromStr<Err = Refused>> FromStr for OrOff<T> {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::On).map_err(|Refused(reason)| Refused(format!("{reason}, or off"))),
        }
    }
}

impl FromStr for Keepalive {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "off" => Ok(Self::Off),
            "host" => Ok(Self::Host),
            _ => match text.parse::<KeepaliveTime>() {
                Ok(time) => Ok(Self::After(time.plain())),
                Err(Refused(reason)) => Err(Refused(format!("off, host, or {reason}"))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good<T: FromStr<Err = Refused>>(text: &str) -> bool {
        text.parse::<T>().is_ok()
    }

    #[test]
    fn limits_are_checked_at_both_ends() {
        for (text, expected) in [("0", false), ("1", true), ("65535", true), ("65536", false), ("-1", false)]
        {
            assert_eq!(good::<QueueLength>(text), expected, "{text}");
        }
        for (text, expected) in [
            ("0", false),
            ("1", true),
            ("3", false),
            ("32768", true),
            ("65536", false),
            ("9999999999", false),
        ] {
            assert_eq!(good::<BufferCount>(text), expected, "{text}");
        }
        for (text, expected) in [
            ("0s", false),
            ("999us", false),
            ("1ms", true),
            ("1day", true),
            ("86401s", false),
            ("5", false),
            ("", false),
            ("584542046090years", false),
        ] {
            assert_eq!(good::<IdleTimeout>(text), expected, "{text}");
        }
        for (text, expected) in
            [("0s", false), ("1s", true), ("1500ms", false), ("32767s", true), ("32768s", false)]
        {
            assert_eq!(good::<KeepaliveTime>(text), expected, "{text}");
            assert_eq!(good::<Keepalive>(text), expected, "{text}");
        }
        for (text, expected) in
            [("0", true), ("50", true), ("50us", true), ("1s", true), ("1000001", false), ("1500ns", false)]
        {
            assert_eq!(good::<Microseconds>(text), expected, "{text}");
        }
    }

    #[test]
    fn an_error_says_what_would_do() {
        let error = "127.0.0.1".parse::<ListenAddress>().unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:7000"), "{error}");
        let error = "65536".parse::<OrOff<QueueLength>>().unwrap_err().to_string();
        assert_eq!(error, "must be a whole number from 1 to 65535, or off");
        let error = "soon".parse::<StatsInterval>().unwrap_err().to_string();
        assert_eq!(error, "must be a time from 100ms to 1day, such as 5s or 500ms");
        let error = "1ms".parse::<Keepalive>().unwrap_err().to_string();
        assert_eq!(error, "must be off, host, or a time of whole seconds from 1s to 32767s, such as 5s");
    }

    #[test]
    fn a_port_alone_serves_metrics_on_loopback_only() {
        let address = |text: &str| text.parse::<MetricsAddress>().unwrap().plain().to_string();
        assert_eq!(address("9100"), "127.0.0.1:9100");
        assert_eq!(address("0.0.0.0:9100"), "0.0.0.0:9100");
        assert!(!good::<MetricsAddress>("65536"));
    }

    #[test]
    fn no_account_is_empty_or_breaks_the_line() {
        assert!(good::<Account>("nobody") && good::<Account>("65534"));
        assert!(!good::<Account>("") && !good::<Account>("a:b") && !good::<Account>("a\nb"));
    }
}
