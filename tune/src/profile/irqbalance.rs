//! `irqbalance`: what becomes of it, which would move the interrupts again. Pure.

use toml::de::DeValue;

use super::section::{ProfileError, Section};

/// `irqbalance`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IrqbalanceWish {
    /// What becomes of it.
    pub policy: IrqbalancePolicy,
    /// Refuse the profile where it runs and cannot be told.
    pub require: bool,
}

/// `irqbalance.policy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IrqbalancePolicy {
    /// It is not touched.
    Coexist,
    /// It is told to leave the interrupts alone that are placed.
    #[default]
    Ban,
}

const KEY: &str = "irqbalance";
const POLICIES: [(&str, IrqbalancePolicy); 2] =
    [("coexist", IrqbalancePolicy::Coexist), ("ban", IrqbalancePolicy::Ban)];

/// A policy, or a table `{ policy = "ban", require = true }`.
pub(super) fn parse(root: &Section) -> Result<IrqbalanceWish, ProfileError> {
    let Some(value) = root.get(KEY) else { return Ok(IrqbalanceWish::default()) };
    let DeValue::Table(table) = value.get_ref() else {
        return Ok(IrqbalanceWish { policy: root.choice(KEY, &POLICIES)?, require: false });
    };
    let section = Section { source: root.source, path: root.key_path(KEY), table };
    section.refuse_unknown(&["policy", "require"])?;
    Ok(IrqbalanceWish {
        policy: section.choice("policy", &POLICIES)?,
        require: section.flag("require")?.unwrap_or(false),
    })
}
