//! What is said to irqbalance and what it answers (`sock_handle()` in its `irqbalance.c`). Pure.
//!
//! `setup` is answered by `SLEEP 10 IRQ 24 LOAD 0 DIFF 0 CLASS 0 … BANNED 00000000`: each banned interrupt
//! has an `IRQ`, and what follows `BANNED` are CPUs. `settings ban irqs 24 25` takes the place of the whole
//! list and is not answered.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::Irq;

/// Asks for the ban list.
pub const SETUP: &[u8] = b"setup\0";

const BAN: &str = "settings ban irqs ";

/// Bytes that irqbalance reads of a message; what is beyond them is lost, and a number there is cut in two.
pub const LONGEST: usize = 500;

/// The banned interrupts in the answer to [`SETUP`].
///
/// # Errors
/// If the text is no such answer.
pub fn parse_setup(text: &str) -> Result<BTreeSet<Irq>, String> {
    let not_understood = |what: &str| format!("answer not understood: {what} in \"{}\"", text.escape_debug());
    let mut words = text.trim_end_matches(['\0', '\n']).split_whitespace();
    if words.next() != Some("SLEEP") {
        return Err(not_understood("no SLEEP"));
    }
    words.next().and_then(|word| word.parse::<u64>().ok()).ok_or_else(|| not_understood("no interval"))?;
    let mut banned = BTreeSet::new();
    loop {
        match words.next() {
            Some("IRQ") => {
                let irq = words.next().and_then(|word| word.parse().ok());
                banned.insert(irq.ok_or_else(|| not_understood("no number after IRQ"))?);
            }
            // Of an interrupt: its load, its difference, its class.
            Some("LOAD" | "DIFF" | "CLASS") => {
                words.next();
            }
            Some("BANNED") => return Ok(banned),
            Some(word) => return Err(not_understood(&format!("\"{}\"", word.escape_debug()))),
            None => return Err(not_understood("no BANNED")),
        }
    }
}

/// The message that makes these the banned interrupts; `None` if it would be longer than irqbalance reads.
///
/// In ascending order, since its parser stops at an IRQ 0 that is not the first. The zero at the end is for
/// versions that read on until there is one (1.9 has none of its own behind what was received).
#[must_use]
pub fn ban(irqs: &BTreeSet<Irq>) -> Option<Vec<u8>> {
    let list = if irqs.is_empty() { "NONE".to_owned() } else { list(irqs) };
    let message = format!("{BAN}{list}\0").into_bytes();
    // One byte less, so that a version that puts its own zero behind the message has room for it.
    (message.len() < LONGEST).then_some(message)
}

/// Interrupts as `24 25`.
#[must_use]
pub fn list(irqs: &BTreeSet<Irq>) -> String {
    irqs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// The text [`list`] gives, in any order; `None` for any other.
#[must_use]
pub fn parse_list(text: &str) -> Option<BTreeSet<Irq>> {
    text.split_whitespace().map(|word| word.parse().ok()).collect()
}

/// What each process was told to leave alone besides its own list.
pub type Additions = BTreeMap<u32, BTreeSet<Irq>>;

/// What the journal holds of a ban list, as `812: 24 25; 813: 24`: not the list, which others change, too,
/// but what a restore takes out of it. By process, since a restart ends it, and what a later one leaves alone
/// is not ours.
#[must_use]
pub fn additions(added: &Additions) -> String {
    let parts: Vec<String> = added.iter().map(|(pid, irqs)| format!("{pid}: {}", list(irqs))).collect();
    parts.join("; ")
}

/// The reverse of [`additions`]; `None` for any other text.
#[must_use]
pub fn parse_additions(text: &str) -> Option<Additions> {
    let parse = |part: &str| {
        let (pid, irqs) = part.split_once(": ")?;
        Some((pid.parse().ok()?, parse_list(irqs)?))
    };
    text.split("; ").map(parse).collect()
}

/// The abstract socket addresses, without their first zero, in `/proc/net/unix` that may be irqbalance's.
///
/// Without a directory `/run/irqbalance` it takes an abstract address: `irqbalance812.sock` with zeros up to
/// the length of an address, or, up to 1.9.2 at least, by mistake nothing but zeros. The file shows a zero as
/// `@`.
#[must_use]
pub fn abstract_addresses(proc_net_unix: &str) -> Vec<Vec<u8>> {
    /// `__SO_ACCEPTCON`: it listens.
    const LISTENS: &str = "00010000";
    /// All of `sun_path` but its first byte.
    const ALL: usize = 107;
    let mut addresses = Vec::new();
    for line in proc_net_unix.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, LISTENS, _, _, _, name] = fields[..] else { continue };
        let Some(name) = name.strip_prefix('@') else { continue };
        let named = name.contains("irqbalance") && name.contains(".sock");
        if (named || name.len() == ALL && name.bytes().all(|byte| byte == b'@')) && name.len() <= ALL {
            addresses.push(name.bytes().map(|byte| if byte == b'@' { 0 } else { byte }).collect());
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn irqs(numbers: &[u32]) -> BTreeSet<Irq> {
        numbers.iter().copied().map(Irq).collect()
    }

    #[test]
    fn the_answer_of_irqbalance_1_9_2() {
        assert_eq!(parse_setup("SLEEP 1 BANNED 00000000"), Ok(irqs(&[])));
        let two =
            "SLEEP 10 IRQ 29 LOAD 0 DIFF 0 CLASS 0 IRQ 30 LOAD 12 DIFF 3 CLASS 4 BANNED 00000000,00000003";
        assert_eq!(parse_setup(two), Ok(irqs(&[29, 30])));
    }

    #[test]
    fn an_answer_that_is_none_is_not_taken_for_an_empty_list() {
        for text in [
            "",
            "SLEEP",
            "SLEEP 10",
            "SLEEP x BANNED 0",
            "SLEEP 10 IRQ 29 LOAD 0 DIFF 0 CLASS 0",
            "SLEEP 10 IRQ BANNED 0",
            "IRQ 29 LOAD 0 DIFF 0 CLASS 0 BANNED 0",
            "SLEEP 10 hello BANNED 0",
        ] {
            assert!(parse_setup(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_names_every_interrupt_and_zero_first() {
        let text = |numbers: &[u32]| ban(&irqs(numbers)).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(text(&[]).unwrap(), "settings ban irqs NONE\0");
        assert_eq!(text(&[30, 0, 129, 8]).unwrap(), "settings ban irqs 0 8 30 129\0");
        let many: Vec<u32> = (100..220).collect();
        assert_eq!(text(&many).unwrap().len(), LONGEST - 2);
        assert_eq!(text(&(100..221).collect::<Vec<_>>()), None, "its end would be lost");
    }

    #[test]
    fn sockets_without_a_file_are_found_by_their_name_or_by_its_absence() {
        let nothing = "@".repeat(108);
        let header = "Num       RefCount Protocol Flags    Type St Inode Path";
        let line = |flags: &str, name: &str| format!("ffff: 00000002 00000000 {flags} 0001 01 4711 {name}");
        let text = [
            header.to_owned(),
            line("00010000", "@irqbalance812.sock@@@"),
            line("00010000", &nothing),
            line("00000000", "@irqbalance813.sock"),
            line("00010000", "/run/irqbalance/irqbalance9.sock"),
            line("00010000", "@@@@"),
            line("00010000", ""),
            line("00010000", "@/tmp/.X11-unix/X0"),
        ]
        .join("\n");
        assert_eq!(abstract_addresses(&text), [b"irqbalance812.sock\0\0\0".to_vec(), vec![0; 107]]);
        assert_eq!(abstract_addresses(""), Vec::<Vec<u8>>::new());
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_panic(text in "(SLEEP [0-9]{1,3} )?((IRQ|LOAD|BANNED|x|[0-9]{1,12}) \
                                                     ){0,9}") {
            let _ = parse_setup(&text);
        }

        #[test]
        fn no_list_of_sockets_makes_the_parser_panic(text in "([0-9a-f:]{1,9}[ \n@]){0,40}") {
            let _ = abstract_addresses(&text);
        }

        #[test]
        fn what_is_sent_is_what_comes_back(numbers in prop::collection::btree_set(0..100_000u32, 0..60)) {
            let irqs: BTreeSet<Irq> = numbers.into_iter().map(Irq).collect();
            let sent = ban(&irqs).unwrap();
            let sent = std::str::from_utf8(&sent[BAN.len()..sent.len() - 1]).unwrap();
            prop_assert_eq!(parse_list(if sent == "NONE" { "" } else { sent }), Some(irqs.clone()));
            let added = Additions::from([(9, irqs.clone()), (10, irqs.clone())]);
            prop_assert_eq!(parse_additions(&additions(&added)), Some(added));
            let mut answer = "SLEEP 10 ".to_owned();
            irqs.iter().for_each(|irq| answer.push_str(&format!("IRQ {irq} LOAD 0 DIFF 0 CLASS 0 ")));
            answer.push_str("BANNED 0");
            prop_assert_eq!(parse_setup(&answer), Ok(irqs));
        }
    }
}
