//! `[channels]`, `[rings]`, `[coalesce]`, `[rss]` and `[features]`. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::section::{ProfileError, Section};
use crate::host::ethtool::{CoalesceField, FlowType, HashFields, Knob};
use toml::de::DeValue;

/// The most channels, descriptors, microseconds or packets that a profile may ask for; a driver takes far
/// less.
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
    /// Those of which less is as good.
    pub at_most: BTreeSet<CoalesceField>,
    /// Refuse the profile where the driver lacks one.
    pub require: bool,
}

/// `[rss]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RssWish {
    /// Equal over the queues used; false is `"keep"`.
    pub equal: bool,
    /// The fields that shall be hashed, of the kinds of flow that are named.
    pub hash: BTreeMap<FlowType, HashFields>,
    /// Refuse the profile where one of them cannot be set.
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
            Knob::Rss | Knob::Hash(_) => self.rss.as_ref().map(|wish| wish.require),
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
    let (mut values, mut at_most) = (BTreeMap::new(), BTreeSet::new());
    for field in CoalesceField::ALL {
        let value = if field.is_switch() {
            section.flag(field.name())?.map(u32::from)
        } else if let Some(most) = most(section, field.name())? {
            at_most.insert(field);
            Some(most)
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
    Ok(CoalesceWish { values, at_most, require: require(section)? })
}

/// `rss.table`.
#[derive(Clone, Copy, Default, PartialEq)]
enum Table {
    #[default]
    Equal,
    Keep,
}

fn parse_rss(section: &Section) -> Result<RssWish, ProfileError> {
    let mut known = vec!["table"];
    known.extend(FlowType::ALL.map(FlowType::name));
    known.push("require");
    section.refuse_unknown(&known)?;
    let equal = section.choice("table", &[("equal", Table::Equal), ("keep", Table::Keep)])? == Table::Equal;
    let mut hash = BTreeMap::new();
    for flow in FlowType::ALL {
        let fields = section.text(flow.name(), |text| {
            let fields: HashFields = text.parse()?;
            let spreads = fields.spreads().then_some(fields);
            spreads.ok_or_else(|| {
                format!("\"{fields}\" spreads nothing over the queues; write \"sdfn\" or \"sd\"")
            })
        })?;
        hash.extend(fields.map(|fields| (flow, fields)));
    }
    Ok(RssWish { equal, hash, require: require(section)? })
}

fn parse_features(section: &Section) -> Result<FeaturesWish, ProfileError> {
    section.refuse_unknown(&["ntuple", "require"])?;
    let ntuple = section.choice("ntuple", &[("keep", None), ("on", Some(true)), ("off", Some(false))])?;
    Ok(FeaturesWish { ntuple, require: require(section)? })
}

fn number(section: &Section, key: &str, least: i128) -> Result<Option<u32>, ProfileError> {
    Ok(section.integer(key, least..=MOST)?.and_then(|number| u32::try_from(number).ok()))
}

/// The number of a table `{ at_most = 8 }`; `None` for anything else.
fn most(section: &Section, key: &str) -> Result<Option<u32>, ProfileError> {
    const AT_MOST: &str = "at_most";
    let Some(value) = section.get(key) else { return Ok(None) };
    let DeValue::Table(table) = value.get_ref() else { return Ok(None) };
    let inner = Section { source: section.source, path: section.key_path(key), table };
    inner.refuse_unknown(&[AT_MOST])?;
    let missing = || section.error(key, &value.span(), "must be a number, or { at_most = NUMBER }");
    number(&inner, AT_MOST, 0)?.map(Some).ok_or_else(missing)
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
            "[channels]\ncount = 8\nrequire = true\n[rings]\nrx = 1024\n[coalesce]\nadaptive_rx = false\n\
             rx_usecs = 8\n\
             tx_frames = { at_most = 0 }\n[rss]\ntable = \"equal\"\nudp4 = \"fnsd\"\n[features]\n\
             ntuple = \"on\"\n",
        );
        let values =
            [(CoalesceField::AdaptiveRx, 0), (CoalesceField::RxUsecs, 8), (CoalesceField::TxFrames, 0)];
        let sdfn: HashFields = "sdfn".parse().unwrap();
        let expected = EthtoolWishes {
            channels: Some(ChannelsWish { count: ChannelCount::Number(8), require: true }),
            rings: Some(RingsWish { rx: Some(1024), tx: None, require: false }),
            coalesce: Some(CoalesceWish {
                values: values.into(),
                at_most: [CoalesceField::TxFrames].into(),
                require: false,
            }),
            rss: Some(RssWish { equal: true, hash: [(FlowType::Udp4, sdfn)].into(), require: false }),
            features: Some(FeaturesWish { ntuple: Some(true), require: false }),
        };
        assert_eq!(found, expected);
        assert!(found.requires(Knob::Channels) && !found.requires(Knob::Rss));
        assert_eq!(wishes("[channels]\ncount = \"workers\"").channels, wishes("[channels]").channels);
        let keep = RssWish { equal: false, hash: BTreeMap::new(), require: false };
        assert_eq!(wishes("[rss]\ntable = \"keep\"").rss, Some(keep));
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
            (
                "[coalesce]\nrx_usecs = {}",
                "p:2:12: coalesce.rx_usecs: must be a number, or { at_most = NUMBER }",
            ),
            (
                "[coalesce]\nrx_usecs = { most = 1 }",
                "p:2:14: coalesce.rx_usecs.most: unknown key; known here: at_most",
            ),
            ("[coalesce]\nadaptive_rx = \"on\"", "p:2:15: coalesce.adaptive_rx: must be true or false"),
            (
                "[coalesce]\nadaptive_rx = true\nrx_usecs = 8",
                "p:3:12: coalesce.rx_usecs: has no meaning with adaptive_rx = true, which chooses it by the \
                 load",
            ),
            ("[rss]\ntable = \"default\"", "p:2:9: rss.table: \"default\" is not one of: equal, keep"),
            (
                "[rss]\nudp4 = \"sx\"",
                "p:2:8: rss.udp4: \"sx\" is not \"none\" or some of the letters mvtsdfnelr",
            ),
            (
                "[rss]\nudp6 = \"none\"",
                "p:2:8: rss.udp6: \"none\" spreads nothing over the queues; write \"sdfn\" or \"sd\"",
            ),
            ("[features]\nntuple = true", "p:2:10: features.ntuple: must be a string in quotes"),
        ] {
            assert_eq!(Profile::parse(text, "p").unwrap_err().to_string(), message);
        }
    }
}
