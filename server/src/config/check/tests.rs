use super::*;
use crate::cli::parse_options;

fn check(arguments: &str) -> Result<Config, Contradiction> {
    parse_options(arguments.split_whitespace()).unwrap().check()
}

/// Refused, and the message is `text`.
fn refused(arguments: &str, text: &str) {
    let error = check(arguments).unwrap_err();
    assert!(error.to_string().contains(text), "{arguments}: {error}");
    for option in error.options() {
        assert!(error.to_string().contains(&format!("--{option}")), "{option} is not named: {error}");
    }
}

#[test]
fn nothing_asked_is_the_default() {
    assert_eq!(check("").unwrap(), Config::default());
}

#[test]
fn udp_goes_with_nothing_of_connections() {
    for option in [
        "--accept per-core",
        "--backlog 1",
        "--defer-accept 1s",
        "--fastopen 1",
        "--idle-timeout 1s",
        "--keepalive host",
        "--max-connections 10",
        "--nodelay true",
        "--overload queue",
        "--spill 1048576",
        "--zerocopy-threshold 1",
    ] {
        let name = option.split(' ').next().unwrap();
        refused(&format!("--udp {option}"), &format!("{name} has no effect with --udp: datagrams have no"));
        assert!(check(&format!("--udp=false {option}")).is_ok(), "{option}");
    }
    for mode in ["discard", "accept-close", "sink-source"] {
        refused(&format!("--udp --mode {mode}"), "leave --mode out, or --udp");
    }
    for good in ["--mode echo", "--steer auto", "--buffers 8 --buffer-size 64", "--busy-poll 50", "--numa"] {
        assert!(check(&format!("--udp {good}")).unwrap().udp, "{good}");
    }
}

#[test]
fn what_is_switched_off_contradicts_nothing() {
    let off =
        "--idle-timeout off --defer-accept off --fastopen off --zerocopy-threshold off --huge-pages=false";
    for by in ["--udp", "--mode accept-close", "--mode discard"] {
        assert!(check(&format!("{by} {off}")).is_ok(), "{by}");
    }
    assert!(check("--v6only=false").is_ok());
}

#[test]
fn a_mode_refuses_what_it_leaves_without_effect() {
    for option in [
        "--buffer-size 64",
        "--buffers 1",
        "--huge-pages",
        "--idle-timeout 1s",
        "--keepalive 5s",
        "--nodelay false",
        "--overload reset",
        "--spill 1048576",
        "--zerocopy-threshold 9",
    ] {
        refused(&format!("--mode accept-close {option}"), "has no effect with --mode accept-close");
        assert!(check(option).is_ok(), "{option}");
    }
    for good in ["--max-connections 5", "--backlog 9", "--defer-accept 1s", "--accept single"] {
        assert!(check(&format!("--mode accept-close {good}")).is_ok(), "{good}");
    }
    refused("--mode discard --nodelay true", "nothing is sent");
    refused("--mode discard --zerocopy-threshold 16384", "nothing is sent");
    refused("--mode discard --spill 1048576", "nothing is sent");
    refused("--mode sink-source --spill 1048576", "nothing that is received is kept");
    assert!(check("--mode discard --idle-timeout 1s --buffers 8").is_ok());
    refused("--mode sink-source --response-size 0 --nodelay true", "with --response-size 0: nothing is sent");
    assert!(check("--mode sink-source --nodelay true").is_ok());
    for mode in ["", "--mode echo", "--mode discard", "--mode accept-close"] {
        for size in ["request-size", "response-size"] {
            refused(
                &format!("{mode} --{size} 64"),
                &format!("--{size} has no effect without --mode sink-source"),
            );
        }
    }
    assert!(check("--mode sink-source --request-size 1 --response-size 0").is_ok());
}

#[test]
fn a_feature_that_is_not_used_anyway_is_not_to_be_done_without() {
    const FEATURES: [&str; 3] = ["direct-descriptors", "receive-credit", "splice"];
    for (by, unused) in [
        ("--udp", &FEATURES[..]),
        ("--accept single", &["direct-descriptors"]),
        ("--mode accept-close", &["receive-credit", "splice"]),
        ("--mode discard", &["splice"]),
        ("--mode sink-source", &["splice"]),
        ("--zerocopy-threshold 16384", &["splice"]),
        ("--accept shared", &[]),
        ("--mode echo", &[]),
        ("--zerocopy-threshold off", &[]),
    ] {
        for feature in FEATURES {
            let both = format!("{by} --without {feature}");
            if unused.contains(&feature) {
                let by = by.trim_end_matches(" 16384");
                refused(&both, &format!("--without {feature} has no effect with {by}: "));
            } else {
                assert_eq!(check(&both).unwrap().without.len(), 1, "{both}");
            }
        }
    }
    refused("--mode discard --without receive-credit,splice", "--without splice has no effect");
}

#[test]
fn one_socket_cannot_be_steered() {
    for model in ["shared", "single"] {
        for steer in ["cpu", "auto"] {
            refused(
                &format!("--accept {model} --steer {steer}"),
                "leave --steer out, or give --accept per-core",
            );
        }
        for steer in ["", "--steer hash"] {
            assert_eq!(check(&format!("--accept {model} {steer}")).unwrap().steer, Steer::Hash);
        }
    }
    assert_eq!(check("--accept per-core").unwrap().steer, Steer::Cpu);
}

#[test]
fn addresses_are_different_and_of_the_right_family() {
    refused(
        "--listen 127.0.0.1:1 --listen [::1]:1 --listen 127.0.0.1:1",
        "--listen 127.0.0.1:1 is given twice",
    );
    refused("--listen 127.0.0.1:1 --listen [::ffff:127.0.0.1]:1", "is given twice");
    refused("--v6only", "--v6only has no effect without an IPv6 address");
    refused("--listen 0.0.0.0:80 --listen [::]:80", "give --v6only");
    refused("--listen 127.0.0.1:80 --listen 0.0.0.0:80", "leave 127.0.0.1:80 out");
    refused("--listen [::]:80 --listen 127.0.0.1:80", "give --v6only, or leave 127.0.0.1:80 out");
    refused("--listen [::1]:80 --listen [::]:80 --v6only", "leave [::1]:80 out");
    refused("--listen 127.0.0.1:80 --metrics 80", "give --metrics another one");
    refused("--listen 0.0.0.0:80 --metrics 80", "give --metrics another one");
    refused("--listen 127.0.0.1:80 --metrics [::]:80", "give --metrics another one");
    for good in [
        "--listen 127.0.0.1:1 --listen [::1]:1 --listen 127.0.0.1:2",
        "--listen 0.0.0.0:80 --listen [::]:80 --v6only",
        "--listen 0.0.0.0:0 --listen [::]:0",
        "--listen 127.0.0.1:1 --listen [::1]:1 --v6only",
        "--listen [fe80::1%1]:1 --listen [fe80::1%2]:1",
        "--listen 127.0.0.1:0 --metrics 0",
        "--listen 0.0.0.0:81 --listen 127.0.0.1:80",
        "--listen [::]:80 --listen 127.0.0.1:80 --v6only",
        "--udp --listen 0.0.0.0:80 --listen 127.0.0.1:80",
        "--listen 127.0.0.1:80 --metrics 127.0.0.2:80",
        "--udp --listen 127.0.0.1:80 --metrics 80",
    ] {
        assert!(check(good).is_ok(), "{good}");
    }
    let none = Options { listen: Some(Vec::new()), ..Options::default() };
    assert!(none.check().unwrap_err().to_string().contains("names no address"));
}

#[test]
fn huge_pages_need_one_to_fill() {
    refused("--huge-pages --buffers 128 --buffer-size 16383", "2097024: raise one of the two");
    assert!(check("--huge-pages --buffers 128 --buffer-size 16384").is_ok());
    assert!(check("--huge-pages").is_ok());
}

#[test]
fn each_rule_is_about_options_that_exist() {
    use clap::Args;
    let command = Options::augment_args(clap::Command::new("server"));
    let exists = |name: &str| command.get_arguments().any(|argument| argument.get_long() == Some(name));
    for rule in IDLE {
        assert!(exists(rule.option) && rule.by.starts_with(&format!("--{}", rule.option)), "{}", rule.by);
        rule.idle.iter().for_each(|name| assert!(exists(name), "{name}"));
    }
}
