//! irqbalance as captured trees have it. The real one is in `irqbalance_real.rs`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;
use std::path::Path;

use common::{Run, copy_of, profile, profile_of, run};
use tune::journal::{Loaded, State};
use tune::kernel_files::KernelFiles;

const TREE: &str = "corelocal/irqbalance.json";

fn tree_of(daemons: &str) -> tempfile::TempDir {
    let tree = copy_of("virtio-2cpu");
    fs::write(tree.path().join(TREE), format!("{{\"daemons\":[{daemons}]}}\n")).unwrap();
    tree
}

fn in_tree(root: &Path) -> String {
    fs::read_to_string(root.join(TREE)).unwrap().trim_end().to_owned()
}

fn auto(root: &Path, command: &str) -> Run {
    run(root, [command, profile("auto.toml").to_str().unwrap()])
}

#[test]
fn the_ban_comes_before_the_interrupts_and_goes_after_them() {
    let tree = tree_of("{\"pid\":9,\"banned_irqs\":[24]}");
    let plan = auto(tree.path(), "plan").expect(2).stdout;
    assert_eq!(plan.lines().next(), Some("irqbalance/banned_irqs: 24 -> 24 38 39"), "{plan}");
    auto(tree.path(), "apply").expect(0);
    assert_eq!(in_tree(tree.path()), "{\"daemons\":[{\"pid\":9,\"banned_irqs\":[24,38,39]}]}");
    assert!(auto(tree.path(), "apply").expect(0).stdout.contains("nothing to do"));
    let restored = run(tree.path(), ["restore"]).expect(0).stdout;
    assert!(restored.contains("irqbalance/banned_irqs: 24 38 39 -> 24\n"), "{restored}");
    assert_eq!(in_tree(tree.path()), "{\"daemons\":[{\"pid\":9,\"banned_irqs\":[24]}]}");
}

/// What is in the list when restore comes, and what it leaves.
#[test]
fn restore_takes_back_ours_and_keeps_what_others_banned_meanwhile() {
    for (meanwhile, after, said) in [
        ("[24,25,38,39]", "[24,25]", "irqbalance/banned_irqs: 24 25 38 39 -> 24 25"),
        ("[38,39]", "[]", "irqbalance/banned_irqs: 38 39 -> \n"),
        ("[38]", "[]", "irqbalance/banned_irqs: 38 -> \n"),
        ("[]", "[]", "restored "),
        ("[40]", "[40]", "restored "),
    ] {
        let tree = tree_of("{\"pid\":9,\"banned_irqs\":[24]}");
        auto(tree.path(), "apply").expect(0);
        let daemon = |list: &str| format!("{{\"daemons\":[{{\"pid\":9,\"banned_irqs\":{list}}}]}}");
        fs::write(tree.path().join(TREE), daemon(meanwhile)).unwrap();
        let restored = run(tree.path(), ["restore"]).expect(0).stdout;
        assert!(restored.contains(said), "{meanwhile}: {restored}");
        assert_eq!(in_tree(tree.path()), daemon(after), "{meanwhile}");
    }
}

#[test]
fn an_irqbalance_that_has_ended_took_its_bans_along_and_restore_says_so() {
    let tree = tree_of("{\"pid\":9,\"banned_irqs\":[]}");
    auto(tree.path(), "apply").expect(0);
    fs::write(tree.path().join(TREE), "{\"daemons\":[]}").unwrap();
    let restored = run(tree.path(), ["restore"]).expect(0).stdout;
    assert!(
        restored.contains("irqbalance has ended or was restarted since; the bans ended with it\n"),
        "{restored}"
    );
    assert!(run(tree.path(), ["restore"]).expect(0).stdout.starts_with("nothing to restore"));
}

/// A restart ends our bans: what the next irqbalance leaves alone by itself is not ours.
#[test]
fn the_bans_of_several_applies_are_all_taken_back_and_none_of_its_own() {
    let tree = tree_of("{\"pid\":9,\"banned_irqs\":[24]}");
    auto(tree.path(), "apply").expect(0);
    let next = "{\"daemons\":[{\"pid\":10,\"banned_irqs\":[24,38]}]}";
    fs::write(tree.path().join(TREE), next).unwrap();
    let drift = auto(tree.path(), "plan").expect(2).stdout;
    assert_eq!(drift, "irqbalance/banned_irqs: 24 38 -> 24 38 39\n");
    auto(tree.path(), "apply").expect(0);
    run(tree.path(), ["restore"]).expect(0);
    assert_eq!(in_tree(tree.path()), next);
}

#[test]
fn a_profile_says_whether_irqbalance_is_told() {
    let tree = tree_of("{\"pid\":9,\"banned_irqs\":[]}");
    let with = |policy: &str| {
        let text = fs::read_to_string(profile("auto.toml")).unwrap();
        let text = text.replace("irqbalance = \"ban\"", &format!("irqbalance = {policy}"));
        let file = profile_of(&text);
        run(tree.path(), ["plan", file.path().to_str().unwrap()])
    };
    assert!(!with("\"coexist\"").expect(2).stdout.contains("irqbalance"));
    fs::write(tree.path().join(TREE), "{\"daemons\":[]}").unwrap();
    let skipped = "tune: skipped irqbalance = \"ban\": irqbalance does not run here\n";
    assert_eq!(with("\"ban\"").expect(2).stderr, skipped);
    fs::remove_file(tree.path().join(TREE)).unwrap();
    let unknown = "tune: skipped irqbalance = \"ban\": /corelocal/irqbalance.json is not in this tree\n";
    assert_eq!(with("\"ban\"").expect(2).stderr, unknown);
    let required = with("{ policy = \"ban\", require = true }");
    assert!(
        required.refusal().contains("is not in this tree; the profile requires it"),
        "{}",
        required.stderr
    );
}

#[test]
fn a_journal_that_was_tampered_with_is_not_sent_to_it() {
    for text in ["24", "9: 24 x", "9: -1", "x: 24", "settings cpus 0"] {
        let tree = tree_of("{\"pid\":9,\"banned_irqs\":[24]}");
        auto(tree.path(), "apply").expect(0);
        let files = KernelFiles::open(tree.path()).unwrap();
        let state = State::open(&tree.path().join("run/corelocal"), &files).unwrap();
        let Loaded::Journal(mut journal) = state.load().unwrap() else { panic!("no journal") };
        let bans = journal.entries.iter_mut().find(|entry| entry.before == "9: 38 39").unwrap();
        text.clone_into(&mut bans.before);
        state.store(&journal).unwrap();
        drop(state);
        let restored = run(tree.path(), ["restore"]).expect(1);
        assert!(
            restored.stderr.contains("in the journal is not what tune writes there"),
            "{}",
            restored.stderr
        );
        assert!(in_tree(tree.path()).contains("[24,38,39]"));
    }
}
