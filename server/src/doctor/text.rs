//! The findings as lines for people. Pure.
//!
//! ```text
//! server doctor: Linux 6.18.44, cores 0-1
//!
//! io_uring
//!   ok    io_uring  allowed; kernel.io_uring_disabled is 0
//!   warn  rings     …
//!                   -> the next step
//!
//! 1 warning: the server starts
//! ```

use std::io::{self, Write};

use super::finding::{Finding, Mark, count, worst};

/// Widest column of subjects; a longer one pushes its own line alone to the right.
const WIDEST: usize = 36;

/// What stands above the findings.
pub(super) struct Head<'a> {
    /// `uname -r`
    pub(super) kernel: &'a str,
    /// CPUs of the workers.
    pub(super) cores: &'a str,
}

/// Writes the findings, in colour if asked.
///
/// # Errors
/// As `out` gives them.
pub(super) fn write(
    out: &mut impl Write,
    head: &Head<'_>,
    findings: &[Finding],
    colours: bool,
) -> io::Result<()> {
    writeln!(out, "server doctor: Linux {}, cores {}", head.kernel, head.cores)?;
    let mut group = None;
    for finding in findings {
        if group != Some(finding.group) {
            group = Some(finding.group);
            let of_group = findings.iter().filter(|other| other.group == finding.group);
            let width =
                of_group.map(|other| other.subject.chars().count()).filter(|width| *width <= WIDEST).max();
            writeln!(out, "\n{}", finding.group.title())?;
            write_group(out, findings, finding, width.unwrap_or(0), colours)?;
        }
    }
    writeln!(out, "\n{}", summary(findings))
}

/// The findings of the group of `first`.
fn write_group(
    out: &mut impl Write,
    findings: &[Finding],
    first: &Finding,
    width: usize,
    colours: bool,
) -> io::Result<()> {
    for finding in findings.iter().filter(|finding| finding.group == first.group) {
        let (before, after) = if colours { (colour(finding.mark), "\x1b[0m") } else { ("", "") };
        let (word, subject, says) = (word(finding.mark), plain(&finding.subject), plain(&finding.says));
        writeln!(out, "  {before}{word:<4}{after}  {subject:<width$}  {says}")?;
        if let Some(next) = &finding.next {
            writeln!(out, "{:indent$}-> {}", "", plain(next), indent = width + 10)?;
        }
    }
    Ok(())
}

fn word(mark: Mark) -> &'static str {
    match mark {
        Mark::Ok => "ok",
        Mark::Note => "note",
        Mark::Warning => "warn",
        Mark::Problem => "FAIL",
    }
}

/// Green, blue, yellow, red.
fn colour(mark: Mark) -> &'static str {
    match mark {
        Mark::Ok => "\x1b[32m",
        Mark::Note => "\x1b[34m",
        Mark::Warning => "\x1b[33m",
        Mark::Problem => "\x1b[1;31m",
    }
}

/// What a process or driver calls itself may hold anything; no control character reaches the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The last line.
fn summary(findings: &[Finding]) -> String {
    let number = |mark, noun: &str| match count(findings, mark) {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    };
    let (warnings, notes) = (number(Mark::Warning, "warning"), number(Mark::Note, "note"));
    match worst(findings) {
        Mark::Problem => {
            let problems = number(Mark::Problem, "problem");
            let first = findings.iter().find(|finding| finding.mark == Mark::Problem);
            let why =
                first.map(|finding| format!(" ({}: {})", plain(&finding.subject), plain(&finding.says)));
            format!("{problems}, {warnings}, {notes}: the server would not start{}", why.unwrap_or_default())
        }
        Mark::Warning => format!("{warnings}, {notes}: the server would start, but see the warnings"),
        Mark::Note | Mark::Ok => format!("{notes}: the server would start, and nothing is in its way"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Group;
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::new(Group::IoUring, "a", Mark::Ok, "io_uring", "allowed"),
            Finding::new(Group::IoUring, "b", Mark::Note, "ring", "made"),
            Finding::new(Group::Nic, "c", Mark::Warning, "eth0", "far\x1b[2J away\n").next("come nearer"),
        ]
    }

    fn text(findings: &[Finding], colours: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, &Head { kernel: "6.18", cores: "0-3" }, findings, colours).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_grouped_and_aligned() {
        let expected = "\
server doctor: Linux 6.18, cores 0-3

io_uring
  ok    io_uring  allowed
  note  ring      made

network interfaces
  warn  eth0  far [2J away\x20
              -> come nearer

1 warning, 1 note: the server would start, but see the warnings
";
        assert_eq!(text(&findings(), false), expected);
    }

    #[test]
    fn colours_change_nothing_else() {
        let coloured = text(&findings(), true);
        assert!(coloured.contains("\x1b[33mwarn\x1b[0m"), "{coloured}");
        let mut plain = coloured;
        for code in ["\x1b[32m", "\x1b[34m", "\x1b[33m", "\x1b[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, text(&findings(), false));
    }

    #[test]
    fn the_last_line_says_what_will_be() {
        let mut list = findings();
        assert!(summary(&list[..1]).ends_with("0 notes: the server would start, and nothing is in its way"));
        list.push(Finding::new(Group::Nic, "d", Mark::Problem, "port", "taken"));
        assert_eq!(summary(&list), "1 problem, 1 warning, 1 note: the server would not start (port: taken)");
    }
}
