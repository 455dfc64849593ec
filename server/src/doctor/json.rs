//! The findings as one JSON object for programs. Pure.
//!
//! The fields of schema 1; more may be added, none of these changes its meaning:
//!
//! | field | what |
//! |---|---|
//! | `schema` | 1 |
//! | `verdict` | `ok`, `warnings` or `problems`; a note changes nothing |
//! | `exit_code` | that of the process: 0, 2, 1 |
//! | `kernel` | `uname -r` |
//! | `cores` | the workers' CPUs as a list |
//! | `counts` | number of findings by mark: `ok`, `note`, `warning`, `problem` |
//! | `findings[]` | in the order of the text |
//! | `findings[].group` | `io_uring`, `features`, `limits`, `network`, `addresses`, `cores`, `nic` |
//! | `findings[].check` | stable name, such as `limits.open_files` or `feature.direct_descriptors` |
//! | `findings[].mark` | `ok`, `note`, `warning` (the server starts, not as it could), `problem` (it does not start) |
//! | `findings[].subject` | the sysctl, address, interface or feature that was looked at |
//! | `findings[].says` | what was found, for people: the words may change |
//! | `findings[].next` | the command or setting that would change it; null if there is none |
//! | `findings[].feature` | for features alone: `state` (`used`, `available`, `absent`, `switched_off`), `since` (Linux release), `why` it matters, what the server does `instead` |

use std::io::{self, Write};

use serde::Serialize;

use super::finding::{Finding, Mark, count, worst};
use super::text::Head;

/// The schema of the object.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Object<'a> {
    schema: u32,
    verdict: &'static str,
    exit_code: u8,
    kernel: &'a str,
    cores: &'a str,
    counts: Counts,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct Counts {
    ok: usize,
    note: usize,
    warning: usize,
    problem: usize,
}

/// Writes the object and a newline.
///
/// # Errors
/// As `out` gives them.
pub(super) fn write(out: &mut impl Write, head: &Head<'_>, findings: &[Finding]) -> io::Result<()> {
    let worst = worst(findings);
    let object = Object {
        schema: SCHEMA,
        verdict: match worst {
            Mark::Ok | Mark::Note => "ok",
            Mark::Warning => "warnings",
            Mark::Problem => "problems",
        },
        exit_code: super::exit_code(worst),
        kernel: head.kernel,
        cores: head.cores,
        counts: Counts {
            ok: count(findings, Mark::Ok),
            note: count(findings, Mark::Note),
            warning: count(findings, Mark::Warning),
            problem: count(findings, Mark::Problem),
        },
        findings,
    };
    serde_json::to_writer(&mut *out, &object)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::finding::Group;
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_schema() {
        let findings = [
            Finding::new(Group::Limits, "limits.x", Mark::Warning, "x", "low").next("raise it"),
            Finding::new(Group::IoUring, "io_uring.y", Mark::Ok, "y", "fine"),
        ];
        let mut out = Vec::new();
        write(&mut out, &Head { kernel: "6.18", cores: "0-3" }, &findings).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            object,
            json!({
                "schema": 1, "verdict": "warnings", "exit_code": 2, "kernel": "6.18", "cores": "0-3",
                "counts": { "ok": 1, "note": 0, "warning": 1, "problem": 0 },
                "findings": [
                    { "group": "limits", "check": "limits.x", "mark": "warning", "subject": "x", "says": "low",
                      "next": "raise it" },
                    { "group": "io_uring", "check": "io_uring.y", "mark": "ok", "subject": "y", "says": "fine",
                      "next": null },
                ],
            })
        );
        assert!(out.ends_with(b"}\n"));
    }
}
