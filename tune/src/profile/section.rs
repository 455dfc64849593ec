//! Reading a table of TOML key by key, with the place and the key's path in every error. Pure.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Why a text is no profile. One line: `file:line:column: key: message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct ProfileError {
    file: String,
    line: usize,
    column: usize,
    message: String,
}

/// An integer in any of the forms of TOML; `None` if it is none, or has more than 64 bits, signed or
/// unsigned.
pub(super) fn integer(value: &Spanned<DeValue>) -> Option<i128> {
    let integer = value.get_ref().as_integer()?;
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number).then_some(number)
}

/// The text, for turning offsets into lines.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) file: &'a str,
}

impl Source<'_> {
    pub(super) fn error(&self, span: &Range<usize>, message: &str) -> ProfileError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        ProfileError {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.to_owned(),
        }
    }
}

/// A table and the path of keys that leads to it, empty for the document.
pub(super) struct Section<'a, 'i> {
    pub(super) source: Source<'a>,
    pub(super) path: String,
    pub(super) table: &'a DeTable<'i>,
}

impl<'a, 'i> Section<'a, 'i> {
    pub(super) fn key_path(&self, key: &str) -> String {
        let plain =
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let key = if plain { key.to_owned() } else { format!("\"{}\"", key.escape_default()) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn error(&self, key: &str, span: &Range<usize>, message: &str) -> ProfileError {
        self.source.error(span, &format!("{}: {message}", self.key_path(key)))
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.table.get(key)
    }

    pub(super) fn refuse_unknown(&self, known: &[&str]) -> Result<(), ProfileError> {
        let unknown = self.table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref()));
        match unknown.min_by_key(|(key, _)| key.span().start) {
            None => Ok(()),
            Some((key, _)) => {
                let message = format!("unknown key; known here: {}", known.join(", "));
                Err(self.error(key.get_ref(), &key.span(), &message))
            }
        }
    }

    pub(super) fn section(&self, key: &str) -> Result<Option<Section<'a, 'i>>, ProfileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Table(table) => Ok(Some(Section { source: self.source, path: key.to_owned(), table })),
            _ => Err(self.error(
                key,
                &value.span(),
                &format!("must be a table: write [{key}] on a line of its own"),
            )),
        }
    }

    pub(super) fn text<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ProfileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value
            .get_ref()
            .as_str()
            .ok_or_else(|| self.error(key, &value.span(), "must be a string in quotes"))?;
        parse(text).map(Some).map_err(|message| self.error(key, &value.span(), &message))
    }

    pub(super) fn integer(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<i128>,
    ) -> Result<Option<i128>, ProfileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match integer(value).filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let message = format!("must be an integer from {} to {}", range.start(), range.end());
                Err(self.error(key, &value.span(), &message))
            }
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ProfileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(Some(*flag)),
            _ => Err(self.error(key, &value.span(), "must be true or false")),
        }
    }

    pub(super) fn choice<T: Copy + Default>(
        &self,
        key: &str,
        choices: &[(&str, T)],
    ) -> Result<T, ProfileError> {
        let choose = |text: &str| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                format!("\"{}\" is not one of: {}", text.escape_debug(), names.join(", "))
            })
        };
        Ok(self.text(key, choose)?.unwrap_or_default())
    }
}
