//! Shell completions and manual pages.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::fs;

use common::{Run, tune};

#[test]
fn every_shell_gets_completions_that_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = Run::from(tune().args(["completions", shell]).output().unwrap()).expect(0).stdout;
        for word in ["check", "script", "--state-dir", "netns"] {
            assert!(text.contains(word.trim_start_matches('-')), "{shell} has no {word}");
        }
    }
    let unknown = Run::from(tune().args(["completions", "csh"]).output().unwrap()).expect(2);
    assert!(unknown.stderr.contains("csh"), "{}", unknown.stderr);
}

/// The words after "opts=" of a subcommand in bash's completions.
fn completed(subcommand: &str) -> Vec<String> {
    let text = Run::from(tune().args(["completions", "bash"]).output().unwrap()).expect(0).stdout;
    let case = format!("__{subcommand})");
    let is_case =
        |line: &&str| line.starts_with("        tune") && line.ends_with(&case) && !line.contains("help__");
    let lines = text.lines().skip_while(|line| !is_case(line));
    let options = lines.map(str::trim).find_map(|line| line.strip_prefix("opts=\"")).unwrap();
    options.trim_end_matches('"').split_whitespace().map(str::to_owned).collect()
}

#[test]
fn what_a_subcommand_refuses_is_neither_completed_nor_in_its_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    Run::from(tune().arg("man").arg(directory.path()).output().unwrap()).expect(0);
    for (subcommand, taken, refused) in [
        ("diff", "--json", "--root"),
        ("completions", "--help", "--json"),
        ("restore", "--state-dir", "--cpus"),
        ("plan", "--cpus", "--state-dir"),
        ("init", "--map", "--interface"),
    ] {
        let options = completed(subcommand);
        let has = |option: &str| options.iter().any(|word| word == option);
        assert!(has(taken) && !has(refused), "{subcommand}: {options:?}");
        let name = if subcommand == "init" { "profile-init" } else { subcommand };
        let page = fs::read_to_string(directory.path().join(format!("tune-{name}.1"))).unwrap();
        let in_page = |option: &str| page.contains(&format!("\\fB{}\\fR", option.replace('-', "\\-")));
        assert!(in_page(taken) && !in_page(refused), "{page}");
    }
}

#[test]
fn there_is_a_manual_page_for_each_subcommand() {
    let directory = tempfile::tempdir().unwrap();
    Run::from(tune().arg("man").arg(directory.path()).output().unwrap()).expect(0);
    let help = Run::from(tune().arg("--help").output().unwrap()).expect(0).stdout;
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands
        .filter(|line| line.starts_with("  ") && !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let page = fs::read_to_string(directory.path().join(format!("tune-{command}.1"))).unwrap();
        assert!(page.contains(".TH"), "{page}");
    }
    let page = fs::read_to_string(directory.path().join("tune-check.1")).unwrap();
    assert!(page.contains("2 drifted"), "{page}");
    let nowhere = Run::from(tune().args(["man", "/no/such/directory"]).output().unwrap());
    assert!(nowhere.refusal().contains("/no/such/directory: ENOENT"), "{}", nowhere.stderr);
}
