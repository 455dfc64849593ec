//! `Knob`: one thing that ethtool sets, its name and the text of its value. Pure.
//!
//! | knob | value |
//! |---|---|
//! | `channels` | `combined 8`, `rx 4 tx 4`, `rx 0 tx 0 combined 8`: the kinds that the driver has |
//! | `rings` | `rx 1024 tx 1024` |
//! | `rss` | `equal 8`, `table 0*64 1*64` (see [`RssTable`]) |
//! | `rss/tcp4` and the like | `sdfn`, `none` (see [`HashFields`]) |
//! | `coalesce/adaptive_rx` and `_tx` | `on`, `off` |
//! | `coalesce/rx_usecs` and the like | a number |
//! | `ntuple` | `on`, `off` |

use serde::{Deserialize, Serialize};

use super::{Ethtool, Feature, FlowType, HashFields, Limited, NTUPLE, RssTable};
use crate::setting::Value;

/// The kinds of channels that are set, in the order of the text.
const CHANNEL_KINDS: [&str; 3] = ["rx", "tx", "combined"];
const RING_KINDS: [&str; 2] = ["rx", "tx"];

/// A parameter of interrupt coalescing. In the order of writing: where adaptive moderation is on, drivers
/// refuse or overwrite the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoalesceField {
    /// The driver chooses the delay of receive interrupts by the load.
    AdaptiveRx,
    /// As above, of transmit completions.
    AdaptiveTx,
    /// Microseconds from a packet to its interrupt.
    RxUsecs,
    /// Packets after which it comes at once.
    RxFrames,
    /// As `rx_usecs`, of transmit completions.
    TxUsecs,
    /// As `rx_frames`, of transmit completions.
    TxFrames,
}

impl CoalesceField {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::AdaptiveRx, Self::AdaptiveTx, Self::RxUsecs, Self::RxFrames, Self::TxUsecs, Self::TxFrames];

    /// Its key in a profile and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AdaptiveRx => "adaptive_rx",
            Self::AdaptiveTx => "adaptive_tx",
            Self::RxUsecs => "rx_usecs",
            Self::RxFrames => "rx_frames",
            Self::TxUsecs => "tx_usecs",
            Self::TxFrames => "tx_frames",
        }
    }

    /// True if it is on or off.
    #[must_use]
    pub fn is_switch(self) -> bool {
        matches!(self, Self::AdaptiveRx | Self::AdaptiveTx)
    }

    /// The value as a setting holds it.
    #[must_use]
    pub fn value(self, number: u32) -> Value {
        if self.is_switch() { switch(number != 0) } else { Value::Numbers(vec![i128::from(number)]) }
    }
}

fn switch(on: bool) -> Value {
    Value::Words(if on { "on" } else { "off" }.to_owned())
}

/// One thing that ethtool sets. The order is the order of writing: channels first, since a driver
/// makes its rings, its RSS table and its interrupts anew for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Knob {
    /// Numbers of channels.
    Channels,
    /// Sizes of rings.
    Rings,
    /// The RSS indirection table.
    Rss,
    /// The fields of a kind of flow that RSS hashes.
    Hash(FlowType),
    /// Interrupt coalescing.
    Coalesce(CoalesceField),
    /// Filters by ports and addresses, which accelerated RFS needs.
    Ntuple,
}

/// A text that is no value of a knob, or one that the interface cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KnobError(pub String);

impl Knob {
    /// All, in the order of writing.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let (hash, coalesce) = (FlowType::ALL.map(Self::Hash), CoalesceField::ALL.map(Self::Coalesce));
        let first = [Self::Channels, Self::Rings, Self::Rss].into_iter();
        first.chain(hash).chain(coalesce).chain([Self::Ntuple])
    }

    /// Its name in a path: `channels`, `coalesce/rx_usecs`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Channels => "channels".to_owned(),
            Self::Rings => "rings".to_owned(),
            Self::Rss => "rss".to_owned(),
            Self::Hash(flow) => format!("rss/{}", flow.name()),
            Self::Coalesce(field) => format!("coalesce/{}", field.name()),
            Self::Ntuple => "ntuple".to_owned(),
        }
    }

    /// The knob of a name that [`Knob::name`] gave.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|knob| knob.name() == name)
    }

    /// How the kernel is asked for it.
    pub(crate) fn way(self) -> &'static str {
        match self {
            Self::Rss | Self::Hash(_) => "ioctl",
            Self::Channels | Self::Rings | Self::Coalesce(_) | Self::Ntuple => "netlink",
        }
    }

    /// True if setting it makes the driver take its queues down and build them anew, with other interrupts
    /// perhaps, and overwrite XPS.
    #[must_use]
    pub fn rebuilds_queues(self) -> bool {
        matches!(self, Self::Channels | Self::Rings | Self::Ntuple)
    }

    /// The value that a text means.
    ///
    /// # Errors
    /// If the text is not of the knob's form.
    pub fn parse(self, text: &str) -> Result<Value, KnobError> {
        let value = match self {
            Self::Channels => Value::Words(join(&counts(text, &CHANNEL_KINDS)?)),
            Self::Rings => Value::Words(join(&counts(text, &RING_KINDS)?)),
            Self::Rss => Value::Words(text.parse::<RssTable>().map_err(KnobError)?.to_string()),
            Self::Hash(_) => Value::Words(text.parse::<HashFields>().map_err(KnobError)?.to_string()),
            Self::Coalesce(field) => field.value(number(self, text)?),
            Self::Ntuple => switch(number(self, text)? != 0),
        };
        Ok(value)
    }
}

/// The number of a coalescing parameter or a switch.
pub(crate) fn number(knob: Knob, text: &str) -> Result<u32, KnobError> {
    let text = text.trim();
    let is_switch = match knob {
        Knob::Coalesce(field) => field.is_switch(),
        _ => true,
    };
    match (is_switch, text) {
        (true, "on") => Ok(1),
        (true, "off") => Ok(0),
        (true, _) => Err(KnobError(format!("\"{}\" is not on or off", text.escape_debug()))),
        (false, _) => {
            text.parse().map_err(|_| KnobError(format!("\"{}\" is not a number", text.escape_debug())))
        }
    }
}

/// `rx 4 tx 4` as pairs, in the order of `kinds`.
pub(crate) fn counts<'k>(text: &str, kinds: &[&'k str]) -> Result<Vec<(&'k str, u32)>, KnobError> {
    let wrong =
        || KnobError(format!("\"{}\" is not a row of {} and numbers", text.escape_debug(), kinds.join(", ")));
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut found = vec![None; kinds.len()];
    for pair in words.chunks(2) {
        let &[kind, number] = pair else { return Err(wrong()) };
        let place = kinds.iter().position(|known| *known == kind).ok_or_else(wrong)?;
        if found[place].replace(number.parse().map_err(|_| wrong())?).is_some() {
            return Err(wrong());
        }
    }
    if words.is_empty() {
        return Err(wrong());
    }
    Ok(kinds.iter().zip(found).filter_map(|(kind, number)| Some((*kind, number?))).collect())
}

pub(crate) fn channel_counts(text: &str) -> Result<Vec<(&'static str, u32)>, KnobError> {
    counts(text, &CHANNEL_KINDS)
}

pub(crate) fn ring_counts(text: &str) -> Result<Vec<(&'static str, u32)>, KnobError> {
    counts(text, &RING_KINDS)
}

fn join(counts: &[(&str, u32)]) -> String {
    let words: Vec<String> = counts.iter().map(|(kind, number)| format!("{kind} {number}")).collect();
    words.join(" ")
}

impl Ethtool {
    /// The text of what a knob holds; `None` where there is none.
    #[must_use]
    pub fn text(&self, knob: Knob) -> Option<String> {
        let row = |numbers: &[(&'static str, Option<Limited>)]| {
            let counts: Vec<_> =
                numbers.iter().filter_map(|(kind, number)| Some((*kind, number.as_ref()?.now))).collect();
            (!counts.is_empty()).then(|| join(&counts))
        };
        match knob {
            Knob::Channels => {
                let channels = self.channels?;
                row(&[("rx", channels.rx), ("tx", channels.tx), ("combined", channels.combined)])
            }
            Knob::Rings => row(&[("rx", self.rings?.rx), ("tx", self.rings?.tx)]),
            Knob::Rss => RssTable::of(&self.rss.as_ref()?.table).map(|table| table.to_string()),
            Knob::Hash(flow) => self.hash.get(&flow).map(ToString::to_string),
            Knob::Coalesce(field) => self.coalesce.get(&field).map(|number| field.value(*number).to_string()),
            Knob::Ntuple => self.features.get(NTUPLE).map(|feature| switch(feature.on).to_string()),
        }
    }

    /// What a knob holds; `None` where there is none.
    #[must_use]
    pub fn value(&self, knob: Knob) -> Option<Value> {
        knob.parse(&self.text(knob)?).ok()
    }

    /// Sets a knob in this data as a driver would, for a captured tree.
    ///
    /// # Errors
    /// If the text is no value of it, it is not there, or the value is above its upper end.
    pub fn set(&mut self, knob: Knob, text: &str) -> Result<(), KnobError> {
        let absent = || KnobError(format!("there is no {} here", knob.name()));
        if self.text(knob).is_none() {
            return Err(absent());
        }
        match knob {
            Knob::Channels => {
                let channels = self.channels.as_mut().ok_or_else(absent)?;
                for (kind, number) in channel_counts(text)? {
                    let place = match kind {
                        "rx" => &mut channels.rx,
                        "tx" => &mut channels.tx,
                        _ => &mut channels.combined,
                    };
                    set_limited(place, kind, number)?;
                }
            }
            Knob::Rings => {
                let rings = self.rings.as_mut().ok_or_else(absent)?;
                for (kind, number) in ring_counts(text)? {
                    set_limited(if kind == "rx" { &mut rings.rx } else { &mut rings.tx }, kind, number)?;
                }
            }
            Knob::Rss => {
                let table = &mut self.rss.as_mut().ok_or_else(absent)?.table;
                let wanted: RssTable = text.parse().map_err(KnobError)?;
                *table = wanted.entries(table.len())?;
            }
            Knob::Hash(flow) => {
                self.hash.insert(flow, text.parse().map_err(KnobError)?);
            }
            Knob::Coalesce(field) => {
                self.coalesce.insert(field, number(knob, text)?);
            }
            Knob::Ntuple => {
                let on = number(knob, text)? != 0;
                match self.features.get_mut(NTUPLE) {
                    Some(Feature { fixed: true, on: now }) if *now != on => {
                        return Err(KnobError(format!("{NTUPLE} is fixed")));
                    }
                    Some(feature) => feature.on = on,
                    None => return Err(absent()),
                }
            }
        }
        Ok(())
    }
}

fn set_limited(place: &mut Option<Limited>, kind: &str, number: u32) -> Result<(), KnobError> {
    match place {
        Some(limited) if number <= limited.max => limited.now = number,
        Some(limited) => {
            return Err(KnobError(format!("{kind} {number} is above the maximum, {}", limited.max)));
        }
        None => return Err(KnobError(format!("there are no {kind} here"))),
    }
    Ok(())
}
