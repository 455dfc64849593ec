//! `watch`: one line for each event, with the time.

use std::io::{self, Write};
use std::time::SystemTime;

use serde::Serialize;

use super::{Format, SCHEMA, write_json};
use crate::watch::Event;

#[derive(Serialize)]
struct EventJson<'a> {
    schema: u32,
    command: &'a str,
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

/// The event, at this time (in UTC, to the second).
///
/// # Errors
/// As `out` gives them.
pub fn watch(out: &mut impl Write, format: Format, time: SystemTime, event: &Event) -> io::Result<()> {
    let time = humantime::format_rfc3339_seconds(time).to_string();
    if format == Format::Json {
        return write_json(out, &EventJson { schema: SCHEMA, command: "watch", time, event });
    }
    write!(out, "{time} ")?;
    match event {
        Event::Started { interfaces, settings } => {
            writeln!(out, "watching {settings} settings of {}", interfaces.join(", "))
        }
        Event::Drift { path, found, wanted, causes } => {
            let found = found.as_deref().unwrap_or("gone");
            let causes = if causes.is_empty() { "somebody wrote it".to_owned() } else { causes.join("; ") };
            writeln!(out, "{path}: {found}, wanted {wanted} ({causes})")
        }
        Event::Link { interface, state } => writeln!(out, "{interface}: {state}"),
        Event::Repaired { changes } => writeln!(out, "repaired: {changes} written"),
        Event::RepairFailed { message } => writeln!(out, "not repaired: {message}"),
        Event::Unknown { message } => writeln!(out, "cannot tell: {message}"),
        Event::AsWanted => writeln!(out, "as wanted"),
        Event::Restored => {
            writeln!(out, "restored: \"tune restore\" put back what was there, and this watch ends")
        }
        Event::Stopped => writeln!(out, "stopped"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn said(format: Format, event: &Event) -> String {
        let mut out = Vec::new();
        watch(&mut out, format, SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000), event).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_event_is_one_line_and_one_object() {
        let time = "2001-09-09T01:46:40Z";
        let head = format!("{{\"schema\":1,\"command\":\"watch\",\"time\":\"{time}\",\"event\":");
        let drift = |found: Option<&str>, causes: &[&str]| Event::Drift {
            path: "/p".into(),
            found: found.map(str::to_owned),
            wanted: "1".into(),
            causes: causes.iter().map(|cause| (*cause).to_owned()).collect(),
        };
        for (event, text, json) in [
            (
                Event::Started { interfaces: vec!["a".into(), "b".into()], settings: 7 },
                "watching 7 settings of a, b",
                r#""started","interfaces":["a","b"],"settings":7}"#,
            ),
            (
                drift(Some("3"), &[]),
                "/p: 3, wanted 1 (somebody wrote it)",
                r#""drift","path":"/p","found":"3","wanted":"1","causes":[]}"#,
            ),
            (
                drift(None, &["x", "y"]),
                "/p: gone, wanted 1 (x; y)",
                r#""drift","path":"/p","found":null,"wanted":"1","causes":["x","y"]}"#,
            ),
            (
                Event::Link { interface: "a".into(), state: "down" },
                "a: down",
                r#""link","interface":"a","state":"down"}"#,
            ),
            (Event::Repaired { changes: 2 }, "repaired: 2 written", r#""repaired","changes":2}"#),
            (
                Event::RepairFailed { message: "m".into() },
                "not repaired: m",
                r#""repair-failed","message":"m"}"#,
            ),
            (Event::Unknown { message: "m".into() }, "cannot tell: m", r#""unknown","message":"m"}"#),
            (Event::AsWanted, "as wanted", r#""as-wanted"}"#),
            (
                Event::Restored,
                "restored: \"tune restore\" put back what was there, and this watch ends",
                r#""restored"}"#,
            ),
            (Event::Stopped, "stopped", r#""stopped"}"#),
        ] {
            assert_eq!(said(Format::Text, &event), format!("{time} {text}\n"));
            assert_eq!(said(Format::Json, &event), format!("{head}{json}\n"));
        }
    }
}
