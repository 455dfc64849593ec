//! `[channels]`, `[rings]`, `[coalesce]`, `[rss]` and `[features]`. Pure.

use std::collections::BTreeMap;

use super::section::{ProfileError, Section};
use crate::host::ethtool::{CoalesceField, Knob};
use toml::de::DeValue;

/// The most channels, descriptors, microseconds or packets that a profile may ask for; a driver takes far less.
const MOST: i128 = 1 << 20;

/// What is asked of ethtool; a section that the profile lacks is `None` and leaves things as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EthtoolWishes {
    /// `[channels]`.
    pub channels: Option<ChannelsWish>,
    /// `[rings]`.
    pub rings: Option<RingsWish>,
    /// `[coalesce]`.
    pub coalesce: Option<CoalesceWish>,
    /// `[rss]`.
    pub rss: Option<RssWish>,
    /// `[features]`.
    pub features: Option<FeaturesWish>,
}

/// `[channels]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelsWish {
    /// How many queues.
    pub count: ChannelCount,
    /// Refuse the profile where the host cannot have as many.
    pub require: bool,
}

/// `channels.count`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ChannelCount {
    /// As many as the profile has CPUs.
    #[default]
    Workers,
    /// This many; never 0.
    Number(u32),
}

/// `[rings]`: descriptors of each queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingsWish {
    /// Of an RX queue.
    pub rx: Option<u32>,
    /// Of a TX queue.
    pub tx: Option<u32>,
    /// Refuse the profile where the host cannot have as many.
    pub require: bool,
}

/// `[coalesce]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoalesceWish {
    /// What shall be set; switches are 0 or 1.
    pub values: BTreeMap<CoalesceField, u32>,
    /// Refuse the profile where the driver lacks one.
    pub require: bool,
}

/// `[rss]` with `table = "equal"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RssWish {
    /// Refuse the profile where the table cannot be set.
    pub require: bool,
}

/// `[features]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeaturesWish {
    /// `ntuple`; `None` is `"keep"`.
    pub ntuple: Option<bool>,
    /// Refuse the profile where the driver lacks it, or would suffer from it.
    pub require: bool,
}

impl EthtoolWishes {
    /// True if the section of a knob says `require = true`.
    #[must_use]
    pub fn requires(&self, knob: Knob) -> bool {
        let require = match knob {
            Knob::Channels => self.channels.map(|wish| wish.require),
            Knob::Rings => self.rings.map(|wish| wish.require),
            Knob::Rss => self.rss.map(|wish| wish.require),
            Knob::Coalesce(_) => self.coalesce.as_ref().map(|wish| wish.require),
            Knob::Ntuple => self.features.map(|wish| wish.require),
        };
        require.unwrap_or(false)
    }
}

/// The names of the sections.
pub(super) const SECTIONS: [&str; 5] = ["channels", "rings", "coalesce", "rss", "features"];

pub(super) fn parse(root: &Section) -> Result<EthtoolWishes, ProfileError> {
    Ok(EthtoolWishes {
        channels: root.section("channels")?.map(|section| parse_channels(&section)).transpose()?,
        rings: root.section("rings")?.map(|section| parse_rings(&section)).transpose()?,
        coalesce: root.section("coalesce")?.map(|section| parse_coalesce(&section)).transpose()?,
        rss: root.section("rss")?.map(|section| parse_rss(&section)).transpose()?,
        features: root.section("features")?.map(|section| parse_features(&section)).transpose()?,
    })
}

fn parse_channels(section: &Section) -> Result<ChannelsWish, ProfileError> {
    section.refuse_unknown(&["count", "require"])?;
    let is_text = section.get("count").is_some_and(|value| matches!(value.get_ref(), DeValue::String(_)));
    let count = if is_text {
        section.choice("count", &[("workers", ChannelCount::Workers)])?
    } else {
        number(section, "count", 1)?.map_or(ChannelCount::Workers, ChannelCount::Number)
    };
    Ok(ChannelsWish { count, require: require(section)? })
}

fn parse_rings(section: &Section) -> Result<RingsWish, ProfileError> {
    section.refuse_unknown(&["rx", "tx", "require"])?;
    Ok(RingsWish { rx: number(section, "rx", 1)?, tx: number(section, "tx", 1)?, require: require(section)? })
}

fn parse_coalesce(section: &Section) -> Result<CoalesceWish, ProfileError> {
    let mut known = CoalesceField::ALL.map(CoalesceField::name).to_vec();
    known.push("require");
    section.refuse_unknown(&known)?;
    let mut values = BTreeMap::new();
    for field in CoalesceField::ALL {
        let value = if field.is_switch() {
            section.flag(field.name())?.map(u32::from)
        } else {
            number(section, field.name(), 0)?
        };
        values.extend(value.map(|value| (field, value)));
    }
    for (switch, delay) in [
        (CoalesceField::AdaptiveRx, CoalesceField::RxUsecs),
        (CoalesceField::AdaptiveTx, CoalesceField::TxUsecs),
    ] {
        if values.get(&switch) == Some(&1)
            && let Some(value) = section.get(delay.name())
            && values.contains_key(&delay)
        {
            let message =
                format!("has no meaning with {} = true, which chooses it by the load", switch.name());
            return Err(section.error(delay.name(), &value.span(), &message));
        }
    }
    Ok(CoalesceWish { values, require: require(section)? })
}

fn parse_rss(section: &Section) -> Result<RssWish, ProfileError> {
    section.refuse_unknown(&["table", "require"])?;
    section.choice("table", &[("equal", ())])?;
    Ok(RssWish { require: require(section)? })
}

fn parse_features(section: &Section) -> Result<FeaturesWish, ProfileError> {
    section.refuse_unknown(&["ntuple", "require"])?;
    let ntuple = section.choice("ntuple", &[("keep", None), ("on", Some(true)), ("off", Some(false))])?;
    Ok(FeaturesWish { ntuple, require: require(section)? })
}

fn number(section: &Section, key: &str, least: i128) -> Result<Option<u32>, ProfileError> {
    Ok(section.integer(key, least..=MOST)?.and_then(|number| u32::try_from(number).ok()))
}

fn require(section: &Section) -> Result<bool, ProfileError> {
    Ok(section.flag("require")?.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn wishes(text: &str) -> EthtoolWishes {
        Profile::parse(text, "p").unwrap().ethtool
    }

    #[test]
    fn a_section_that_is_absent_asks_for_nothing() {
        assert_eq!(wishes(""), EthtoolWishes::default());
    }

    #[test]
    fn each_key_is_read() {
        let found = wishes(
            "[channels]\ncount = 8\nrequire = true\n[rings]\nrx = 1024\n[coalesce]\nadaptive_rx = false\nrx_usecs = 8\n\
             tx_frames = 0\n[rss]\ntable = \"equal\"\n[features]\nntuple = \"on\"\n",
        );
        let values =
            [(CoalesceField::AdaptiveRx, 0), (CoalesceField::RxUsecs, 8), (CoalesceField::TxFrames, 0)];
        let expected = EthtoolWishes {
            channels: Some(ChannelsWish { count: ChannelCount::Number(8), require: true }),
            rings: Some(RingsWish { rx: Some(1024), tx: None, require: false }),
            coalesce: Some(CoalesceWish { values: values.into(), require: false }),
            rss: Some(RssWish { require: false }),
            features: Some(FeaturesWish { ntuple: Some(true), require: false }),
        };
        assert_eq!(found, expected);
        assert!(found.requires(Knob::Channels) && !found.requires(Knob::Rss));
        assert_eq!(wishes("[channels]\ncount = \"workers\"").channels, wishes("[channels]").channels);
        assert_eq!(wishes("[features]").features, Some(FeaturesWish { ntuple: None, require: false }));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (text, message) in [
            ("[channels]\ncount = 0", "p:2:9: channels.count: must be an integer from 1 to 1048576"),
            ("[channels]\ncount = \"all\"", "p:2:9: channels.count: \"all\" is not one of: workers"),
            ("[channels]\nrequire = 1", "p:2:11: channels.require: must be true or false"),
            ("[rings]\nrx = -1", "p:2:6: rings.rx: must be an integer from 1 to 1048576"),
            ("[rings]\nmini = 1", "p:2:1: rings.mini: unknown key; known here: rx, tx, require"),
            ("[coalesce]\nadaptive_rx = \"on\"", "p:2:15: coalesce.adaptive_rx: must be true or false"),
            (
                "[coalesce]\nadaptive_rx = true\nrx_usecs = 8",
                "p:3:12: coalesce.rx_usecs: has no meaning with adaptive_rx = true, which chooses it by the load",
            ),
            ("[rss]\ntable = \"default\"", "p:2:9: rss.table: \"default\" is not one of: equal"),
            ("[features]\nntuple = true", "p:2:10: features.ntuple: must be a string in quotes"),
        ] {
            assert_eq!(Profile::parse(text, "p").unwrap_err().to_string(), message);
        }
    }
}
