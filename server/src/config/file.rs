//! The configuration file: TOML, a key for each option. Every error is one line: `FILE:LINE:COLUMN: KEY: what
//! is wrong`. Pure.

use std::ops::Range;

use toml::de::DeTable;

use super::Options;

/// A configuration file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// What it asks for.
    pub options: Options,
    name: String,
    /// Where each key stands: its name and line.
    lines: Vec<(String, usize)>,
}

/// Why a text is no configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct FileError {
    file: String,
    line: usize,
    column: usize,
    message: String,
}

impl ConfigFile {
    /// Reads the text of a file; `file` is its name, for errors.
    ///
    /// # Errors
    /// If it is not TOML, or has a key that is no option, or a value that its option does not take.
    pub fn parse(text: &str, file: &str) -> Result<Self, FileError> {
        let fail = |error: &toml::de::Error| {
            let span = error.span().unwrap_or(0..0);
            let (line, column) = position(text, span.start);
            let key = key_at(text, &span).map(|key| format!("{key}: ")).unwrap_or_default();
            let message = one_line(&format!("{key}{}", error.message()));
            FileError { file: one_line(file), line, column, message }
        };
        let options = toml::from_str(text).map_err(|error| fail(&error))?;
        let table = DeTable::parse(text).map_err(|error| fail(&error))?;
        let line = |span: Range<usize>| position(text, span.start).0;
        let lines = table.get_ref().iter().map(|(key, _)| (key.get_ref().to_string(), line(key.span())));
        Ok(Self { options, name: one_line(file), lines: lines.collect() })
    }

    /// Where an option stands, as `FILE:LINE`.
    #[must_use]
    pub fn place_of(&self, option: &str) -> Option<String> {
        self.lines.iter().find(|(key, _)| key == option).map(|(_, line)| format!("{}:{line}", self.name))
    }
}

/// Line and column of an offset, from 1 on.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The key whose value lies there; none if the place is the key itself, which the message names, or nothing
/// is there.
fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    let (table, _) = DeTable::parse_recoverable(text);
    let holds = |value: Range<usize>| value.start <= span.start && span.start < value.end;
    let entry = table.get_ref().iter().find(|(_, value)| holds(value.span()))?;
    Some(entry.0.get_ref().to_string())
}

/// On one line, and with nothing in it that a terminal acts on.
fn one_line(text: &str) -> String {
    let shown = |letter: char| match letter {
        '\n' => " ".to_owned(),
        control if control.is_control() => control.escape_default().to_string(),
        other => other.to_string(),
    };
    text.trim_end().chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        ConfigFile::parse(text, "server.toml").unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        for (text, expected) in [
            (
                "mode = \"echo\"\nbacklog = 0\n",
                "server.toml:2:11: backlog: must be a whole number from 1 to 65535",
            ),
            ("backlog = -1", "server.toml:1:11: backlog: must be a whole number from 1 to 65535"),
            ("backlog = 4294967296", "server.toml:1:11: backlog: must be a whole number from 1 to 65535"),
            (
                "idle-timeout = 5",
                "server.toml:1:16: idle-timeout: must be a time from 1ms to 1day, such as 5s or 500ms, or \
                 off",
            ),
            (
                "listen = [\n  \"127.0.0.1:1\",\n  \"::1\",\n]",
                "server.toml:3:3: listen: must be ADDRESS:PORT, such as ",
            ),
            (
                "steer = \"left\"",
                "server.toml:1:9: steer: unknown variant `left`, expected one of `cpu`, `hash`, `auto`",
            ),
            ("udp = \"yes\"", "server.toml:1:7: udp: invalid type: string \"yes\", expected a boolean"),
            (
                "listen = 80",
                "server.toml:1:10: listen: invalid type: integer `80`, expected a string or a list of \
                 strings",
            ),
            (
                "nodelay = 1.5",
                "server.toml:1:11: nodelay: invalid type: floating point `1.5`, expected a boolean",
            ),
            (
                "buffers = true",
                "server.toml:1:11: buffers: invalid type: boolean `true`, expected a string or a whole \
                 number",
            ),
            ("# nothing\nbaklog = 1", "server.toml:2:1: unknown field `baklog`, expected one of `listen`, "),
            ("config = \"other.toml\"", "server.toml:1:1: unknown field `config`"),
            ("[server]\nudp = true", "server.toml:1:2: server: unknown field `server`"),
            ("udp = true\nudp = true", "server.toml:2:1: duplicate key"),
            ("udp =", "server.toml:1:6: "),
            ("user = \"a\\u001b[31mb:\"", "server.toml:1:8: user: must be a name"),
        ] {
            let error = refused(text);
            assert!(error.starts_with(expected), "{error}\nnot {expected}");
        }
    }

    #[test]
    fn an_option_is_found_again() {
        let file = ConfigFile::parse("# first\nudp = true\n\nspin-us = 5\n", "f").unwrap();
        assert_eq!(file.place_of("udp").unwrap(), "f:2");
        assert_eq!(file.place_of("spin-us").unwrap(), "f:4");
        assert_eq!(file.place_of("mode"), None);
        assert_eq!(ConfigFile::parse("", "f").unwrap().options, Options::default());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_one_line(text in "([a-z-]{0,12} ?= ?[^\u{0}]{0,12}\n\
                                                            ?){0,3}|.{0,40}") {
            if let Err(error) = ConfigFile::parse(&text, "f") {
                let error = error.to_string();
                prop_assert!(!error.chars().any(char::is_control), "{error:?}");
            }
        }
    }
}
