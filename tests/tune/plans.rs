//! Every shipped profile on every host tree: either the plan or the refusal that `tests/plans` holds.
//!
//! `tests/plans/PROFILE@HOST.json` is the output of `tune plan --json`, `PROFILE@HOST.refused` the line that
//! says why there is none. `UPDATE_PLANS=1 cargo test -p tune --test plans` writes them anew; what they must say
//! whatever is written there is asserted in `placement.rs`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::{host, names, profile, repository, run};

#[test]
fn every_profile_on_every_host_gives_the_expected_plan_or_refusal() {
    let update = std::env::var_os("UPDATE_PLANS").is_some();
    let plans = repository().join("tests/plans");
    let profiles =
        names(&repository().join("profiles"), |path| path.extension().is_some_and(|e| e == "toml"));
    let hosts = names(&repository().join("tests/hosts"), std::path::Path::is_dir);
    assert!(profiles.len() >= 3 && hosts.len() >= 4, "{profiles:?} {hosts:?}");

    let mut expected_files = BTreeSet::new();
    let mut wrong = Vec::new();
    for profile_file in &profiles {
        for host_name in &hosts {
            let result = run(&host(host_name), ["plan", "--json", profile(profile_file).to_str().unwrap()]);
            let (extension, found) = match result.code {
                Some(0 | 2) => {
                    let plan = result.json();
                    let empty = plan["changes"].as_array().unwrap().is_empty();
                    assert_eq!(result.code, Some(if empty { 0 } else { 2 }), "{profile_file} on {host_name}");
                    ("json", format!("{}\n", serde_json::to_string_pretty(&plan).unwrap()))
                }
                _ => ("refused", without_machine_paths(result.refusal())),
            };
            let name = format!("{}@{host_name}.{extension}", profile_file.trim_end_matches(".toml"));
            if update {
                fs::write(plans.join(&name), &found).unwrap();
            } else if fs::read_to_string(plans.join(&name)).ok().as_ref() != Some(&found) {
                wrong.push(format!("{name} should be:\n{found}"));
            }
            expected_files.insert(name);
        }
    }
    let present: BTreeSet<String> =
        names(&plans, |path| path.extension().is_some_and(|e| e != "md")).into_iter().collect();
    for stale in present.difference(&expected_files) {
        if update {
            fs::remove_file(plans.join(stale)).unwrap();
        } else {
            wrong.push(format!("{stale} is the expectation of no case"));
        }
    }
    assert!(wrong.is_empty(), "UPDATE_PLANS=1 writes them anew.\n{}", wrong.join("\n"));
}

/// The message with the repository's own path taken out.
fn without_machine_paths(message: &str) -> String {
    format!("{}\n", message.replace(&format!("{}/", repository().display()), ""))
}
