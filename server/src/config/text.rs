//! Values as text. Each type has one grammar, `FromStr` and `Display`, on the command line and in a file: a
//! file may say `buffers = 256` or `buffers = "256"`.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use humantime::format_duration;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::values::{
    Account, BufferCount, ListenAddress, MetricsAddress, Microseconds, Number, OrOff, Refused, Seconds, Time,
};
use super::{Cores, Keepalive};

macro_rules! shown_as {
    ($([$($parameter:tt)*] $type:ty: |$value:ident| $text:expr;)*) => {$(
        impl<$($parameter)*> Display for $type {
            /// As the option's value is written.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $value = self;
                write!(f, "{}", $text)
            }
        }
    )*};
}

shown_as! {
    [T: Display, const MIN: u64, const MAX: u64] Number<T, MIN, MAX>: |number| number.0;
    [const MIN: u32, const MAX: u32] Time<MIN, MAX>: |time| format_duration(time.0);
    [const MIN: u32, const MAX: u32] Seconds<MIN, MAX>: |time| format_duration(time.0);
    [] Microseconds: |time| time.0.as_micros();
    [] BufferCount: |count| count.0;
    [] ListenAddress: |address| address.0;
    [] MetricsAddress: |address| address.0;
    [] Account: |account| account.0;
}

impl<T: Display> Display for OrOff<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On(value) => value.fmt(f),
        }
    }
}

impl Display for Keepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Host => f.write_str("host"),
            Self::After(time) => format_duration(*time).fmt(f),
        }
    }
}

/// Serde by way of `FromStr` and `Display`.
macro_rules! written_as_shown {
    ($([$($parameter:tt)*] $type:ty;)*) => {$(
        impl<'de, $($parameter)*> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(Text(PhantomData))
            }
        }

        impl<$($parameter)*> Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                write_shortest(&self.to_string(), serializer)
            }
        }
    )*};
}

written_as_shown! {
    [T: TryFrom<u64> + Display, const MIN: u64, const MAX: u64] Number<T, MIN, MAX>;
    [const MIN: u32, const MAX: u32] Time<MIN, MAX>;
    [const MIN: u32, const MAX: u32] Seconds<MIN, MAX>;
    [] Microseconds;
    [] BufferCount;
    [] ListenAddress;
    [] MetricsAddress;
    [] Account;
    [T: FromStr<Err = Refused> + Display] OrOff<T>;
    [] Cores;
    [] Keepalive;
}

/// Reads the text of a string or an integer.
struct Text<T>(PhantomData<T>);

impl<T: FromStr<Err: Display>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a whole number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Reads a list, or one value that is a list of one, as on the command line.
pub(super) fn one_or_more<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    deserializer.deserialize_any(OneOrMore(PhantomData)).map(Some)
}

struct OneOrMore<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMore<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        T::deserialize(text.into_deserializer()).map(|value| vec![value])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list))
    }
}

/// Numbers as numbers, all else as strings.
fn write_shortest<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    // As TOML has them.
    match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => serializer.serialize_i64(number),
        _ => serializer.serialize_str(text),
    }
}
