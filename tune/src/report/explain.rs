//! `explain`: a line for each queue, and a drawing of one.

use std::io::{self, Write};

use serde::Serialize;

use super::table::write_table;
use super::{Format, SCHEMA, write_json};
use crate::cpu_set::CpuSet;
use crate::explain::{Chain, Explanation, Thread};

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

#[derive(Serialize)]
struct ExplainJson<'a> {
    schema: u32,
    command: &'static str,
    /// Each of the interfaces that carry what was asked for.
    interfaces: &'a [Explanation],
    /// Why the profile cannot be had here; null where it can, or none was given.
    refused: Option<&'a str>,
}

/// What is explained, and how it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Explained<'a> {
    /// The interfaces, each with its queues.
    pub interfaces: &'a [Explanation],
    /// Why the profile cannot be had here.
    pub refused: Option<&'a str>,
    /// One queue was asked for: draw it.
    pub one: bool,
    /// Colour what is whole and what is broken.
    pub colour: bool,
}

/// Writes the chains.
///
/// # Errors
/// As `out` gives them.
pub fn explain(out: &mut impl Write, format: Format, explained: Explained) -> io::Result<()> {
    let Explained { interfaces, refused, one, colour } = explained;
    if format == Format::Json {
        return write_json(out, &ExplainJson { schema: SCHEMA, command: "explain", interfaces, refused });
    }
    for (position, explanation) in interfaces.iter().enumerate() {
        if position > 0 {
            writeln!(out)?;
        }
        if one {
            explanation
                .chains
                .iter()
                .try_for_each(|chain| draw(out, &explanation.interface, chain, colour))?;
        } else {
            if interfaces.len() > 1 {
                writeln!(out, "{}", explanation.interface)?;
            }
            write_lines(out, explanation, colour)?;
        }
        for note in &explanation.notes {
            writeln!(out, "{}: {note}", explanation.interface)?;
        }
    }
    match refused {
        Some(refused) => writeln!(out, "nothing is wanted, since the profile is refused: {refused}"),
        None => Ok(()),
    }
}

fn write_lines(out: &mut impl Write, explanation: &Explanation, colour: bool) -> io::Result<()> {
    let text = table(explanation)?;
    text.lines()
        .try_for_each(|line| writeln!(out, "{}", if colour { coloured(line) } else { line.to_owned() }))
}

/// The last words of a line are the state of its chain.
fn coloured(line: &str) -> String {
    match line.rfind("  ").map(|space| line.split_at(space + 2)) {
        Some((head, "whole")) => format!("{head}{GREEN}whole{PLAIN}"),
        Some((head, "CHAIN")) => format!("{head}CHAIN"),
        Some((head, broken)) => format!("{head}{RED}{broken}{PLAIN}"),
        None => line.to_owned(),
    }
}

const HEAD: [&str; 11] =
    ["QUEUE", "NAPI", "THREAD", "IRQ", "KNOWN BY", "WANTED", "SET", "EFFECTIVE", "XPS", "RPS", "CHAIN"];

fn table(explanation: &Explanation) -> io::Result<String> {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(explanation.chains.iter().map(cells));
    let mut text = Vec::new();
    write_table(&mut text, &rows)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn cells(chain: &Chain) -> [String; 11] {
    [
        chain.name(),
        or_dash(chain.napi.as_ref()),
        chain.thread.as_ref().map_or_else(|| "-".to_owned(), thread),
        or_dash(chain.irq.as_ref()),
        or_dash(chain.known_by.as_ref()),
        or_dash(chain.wanted.as_ref()),
        or_dash(chain.set.as_ref()),
        or_dash(chain.effective.as_ref()),
        steering(chain.xps.as_ref()),
        steering(chain.rps.as_ref()),
        state(chain),
    ]
}

fn state(chain: &Chain) -> String {
    let kinds: Vec<&str> = chain.breaks.iter().map(|found| found.kind).collect();
    if kinds.is_empty() { "whole".to_owned() } else { kinds.join(" ") }
}

fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), T::to_string)
}

fn steering(cpus: Option<&CpuSet>) -> String {
    match cpus {
        Some(cpus) if cpus.is_empty() => "off".to_owned(),
        cpus => or_dash(cpus),
    }
}

fn thread(thread: &Thread) -> String {
    let cpus = thread.cpus.as_ref().map_or_else(|| "gone".to_owned(), |cpus| format!("on {cpus}"));
    format!("{} {cpus}", thread.pid)
}

/// ```text
/// eth0 queue 3
///   RX 3 ─► NAPI 516 ─► IRQ 123 (i40e-eth0-TxRx-3, known by netlink) ─► CPU 3 (set 3, wanted 4)
///             └─ thread 884 on 0-3 (wanted 4)
///         then RPS: off (wanted off)
///   TX 3 ◄─ XPS ◄─ CPUs 3 (wanted 4)
/// ```
fn draw(out: &mut impl Write, interface: &str, chain: &Chain, colour: bool) -> io::Result<()> {
    let wanted = |cpus: &Option<CpuSet>| {
        cpus.as_ref().map_or_else(String::new, |cpus| format!(" (wanted {})", steering(Some(cpus))))
    };
    writeln!(out, "{interface} queue {}", chain.name())?;
    let (head, width) = match (chain.rx, chain.tx) {
        (Some(rx), _) => (format!("RX {rx}"), rx.to_string().len()),
        (None, tx) => (format!("TX {}", or_dash(tx.as_ref())), 1),
    };
    let napi = chain.napi.map_or_else(|| "NAPI not known".to_owned(), |napi| format!("NAPI {napi}"));
    writeln!(out, "  {head} ─► {napi} ─► {}", interrupt(chain))?;
    if let Some(found) = &chain.thread {
        let name = found.name.as_deref().unwrap_or("of another PID namespace");
        let indent = " ".repeat(8 + width);
        writeln!(out, "{indent}└─ thread {} ({name}){}", thread(found), wanted(&found.wanted))?;
    }
    if chain.rx.is_some() {
        writeln!(out, "  then RPS: {}{}", steering(chain.rps.as_ref()), wanted(&chain.rps_wanted))?;
    }
    if let Some(tx) = chain.tx {
        let cpus = match &chain.xps {
            None => "any CPU (there is no XPS here)".to_owned(),
            Some(cpus) if cpus.is_empty() => "any CPU (off)".to_owned(),
            Some(cpus) => format!("CPUs {cpus}"),
        };
        writeln!(out, "  TX {tx} ◄─ XPS ◄─ {cpus}{}", wanted(&chain.xps_wanted))?;
    }
    let (good, bad, plain) = if colour { (GREEN, RED, PLAIN) } else { ("", "", "") };
    if chain.breaks.is_empty() {
        let stay = match &chain.rps {
            Some(cpu) if !cpu.is_empty() => format!("RPS has its packets on CPU {cpu}"),
            _ => "nothing takes its packets to another CPU".to_owned(),
        };
        return writeln!(out, "  {good}whole{plain}: {stay}");
    }
    for found in &chain.breaks {
        writeln!(out, "  {bad}broken{plain}: {}", found.says)?;
    }
    Ok(())
}

fn interrupt(chain: &Chain) -> String {
    let (Some(irq), Some(how)) = (chain.irq, chain.known_by) else { return "no interrupt".to_owned() };
    let name = chain.interrupt.as_deref().filter(|name| !name.is_empty());
    let name = name.map_or_else(String::new, |name| format!("{name}, "));
    let cpu = match (&chain.effective, &chain.set) {
        (Some(effective), Some(set)) if effective == set => format!("CPU {effective} (set and effective)"),
        (Some(effective), Some(set)) => format!("CPU {effective} (set {set})"),
        (None, set) => format!("CPU {} (set; effective is not known)", or_dash(set.as_ref())),
        (effective, None) => format!("CPU {}", or_dash(effective.as_ref())),
    };
    let wanted = chain.wanted.as_ref().map_or_else(String::new, |wanted| format!(", wanted {wanted}"));
    format!("IRQ {irq} ({name}known by {how}) ─► {cpu}{wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain;
    use crate::host::fixture::nic_host;

    fn text(one: bool, colour: bool) -> String {
        let host = nic_host(2, 2);
        let mut explanation = explain::explain(&host.nics[0], &host.topology, None);
        if one {
            explanation.chains.truncate(1);
        }
        let interfaces = [explanation];
        let mut out = Vec::new();
        let explained = Explained { interfaces: &interfaces, refused: Some("no"), one, colour };
        explain(&mut out, Format::Text, explained).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_for_each_queue() {
        let text = text(false, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[0].starts_with("QUEUE  NAPI  THREAD  IRQ  KNOWN BY"), "{text}");
        assert!(lines[1].ends_with("irq_on_several_cpus xps_off"), "{text}");
        assert_eq!(lines[3], "nothing is wanted, since the profile is refused: no");
    }

    #[test]
    fn a_drawing_of_one() {
        let text = text(true, false);
        for part in [
            "eth0 queue 0\n",
            "  RX 0 ─► NAPI not known ─► IRQ 40 (eth0-TxRx-0, known by msi_irqs) ─► CPU 0 (set 0-1)\n",
            "  then RPS: off\n",
            "  TX 0 ◄─ XPS ◄─ any CPU (off)\n",
            "  broken: IRQ 40 may fire on each of the CPUs 0-1, now on 0\n",
        ] {
            assert!(text.contains(part), "{part}{text}");
        }
    }

    #[test]
    fn colours_only_where_they_are_asked_for() {
        for one in [false, true] {
            assert!(!text(one, false).contains('\x1b'));
            assert!(text(one, true).contains(RED), "{}", text(one, true));
        }
        assert_eq!(coloured("0  1  whole"), format!("0  1  {GREEN}whole{PLAIN}"));
        assert_eq!(coloured("QUEUE  CHAIN"), "QUEUE  CHAIN");
    }
}
