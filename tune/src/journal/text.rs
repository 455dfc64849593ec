//! A journal as the text of its file, and back. Pure.
//!
//! The text carries a CRC-32 of the journal, so that one that is damaged, or that somebody has edited, is
//! refused as a whole. It is no signature: whoever may write the file may also compute the checksum of what
//! he wrote.

use flate2::Crc;
use serde::{Deserialize, Serialize};

use super::{Journal, SCHEMA};

/// What every schema has.
#[derive(Deserialize)]
struct Head {
    schema: u32,
    tool: String,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    /// Of the journal's JSON without white space, in hex.
    crc32: String,
    #[serde(flatten)]
    journal: Journal,
}

/// The text of a journal.
pub(super) fn write(journal: &Journal) -> String {
    let sealed = Sealed { crc32: checksum(journal), journal: journal.clone() };
    serde_json::to_string_pretty(&sealed).expect("strings and numbers") + "\n"
}

/// The journal of a text, or why it is none.
pub(super) fn read(text: &str) -> Result<Journal, String> {
    let Head { schema, tool } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if schema != SCHEMA {
        let tool = tool.escape_debug();
        return Err(format!(
            "its schema is {schema} ({tool}), this program knows {SCHEMA}: restore with the tune that wrote \
             it"
        ));
    }
    let Sealed { crc32, journal } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let found = checksum(&journal);
    if crc32 != found {
        return Err(format!(
            "somebody has changed it, or it is damaged: its crc32 is \"{}\", and that of what it holds \
             {found}; \"before\" in its entries is what was there, to be written back by hand",
            crc32.escape_debug()
        ));
    }
    Ok(journal)
}

fn checksum(journal: &Journal) -> String {
    let mut crc = Crc::new();
    crc.update(&serde_json::to_vec(journal).expect("strings and numbers"));
    format!("{:08x}", crc.sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Entry;

    fn journal() -> Journal {
        let entry = |path: &str| Entry { path: path.into(), before: "128".into(), owner: None };
        Journal {
            schema: SCHEMA,
            tool: "tune 1".into(),
            boot_id: None,
            netns: 7,
            restoring: false,
            entries: vec![entry("/proc/sys/net/core/somaxconn"), entry("/proc/sys/net/ipv4/tcp_migrate_req")],
        }
    }

    #[test]
    fn what_was_written_is_read_and_white_space_says_nothing() {
        let text = write(&journal());
        assert_eq!(read(&text), Ok(journal()));
        assert_eq!(read(&text.replace("  ", "")), Ok(journal()));
        let restoring = journal().being_restored();
        assert_eq!(read(&write(&restoring)), Ok(restoring));
    }

    #[test]
    fn every_edit_of_what_it_says_is_refused() {
        let text = write(&journal());
        for (was, now) in [
            ("\"128\"", "\"129\""),
            ("core/somaxconn", "core/optmem_max"),
            ("\"netns\": 7", "\"netns\": 8"),
            ("\"boot_id\": null", "\"boot_id\": \"x\""),
            ("\"netns\": 7", "\"netns\": 7, \"restoring\": true"),
            ("tune 1", "tune 2"),
        ] {
            let edited = text.replacen(was, now, 1);
            assert_ne!(edited, text, "{was}");
            assert!(read(&edited).unwrap_err().contains("somebody has changed it"), "{was}");
        }
        let unsealed = serde_json::to_string(&journal()).unwrap();
        assert!(read(&unsealed).unwrap_err().contains("missing field `crc32`"));
    }

    #[test]
    fn one_without_a_checksum_of_an_older_program_is_named_with_what_to_do() {
        let mut older = journal();
        older.schema = 2;
        let error = read(&serde_json::to_string(&older).unwrap()).unwrap_err();
        assert_eq!(
            error,
            "its schema is 2 (tune 1), this program knows 3: restore with the tune that wrote it"
        );
    }
}
