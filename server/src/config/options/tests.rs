//! Each option in both its forms, from one table.

use std::collections::BTreeSet;

use clap::Args;
use proptest::prelude::*;

use super::super::Config;
use super::super::file::ConfigFile;
use super::*;
use crate::cli::parse_options;

/// How the values of an option are written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `true` or `false`; on the command line `--option` is `--option=true`.
    Flag,
    /// As a number.
    Number,
    /// In quotes.
    Text,
    /// In quotes, several in brackets; on the command line once for each.
    List,
}

use Form::{Flag, List, Number as Digits, Text};

/// One option as it was given.
#[derive(Debug, Clone)]
struct Given {
    name: &'static str,
    form: Form,
    values: Vec<String>,
}

/// Every option, its form in a file, and the pattern of its good values.
const TABLE: &[(&str, Form, &str)] = &[
    ("listen", List, r"(127\.0\.0\.[1-9]|0\.0\.0\.0|\[::1\]|\[fe80::1%3\]):[1-5]?[0-9]{1,4}"),
    ("v6only", Flag, "true|false"),
    ("backlog", Digits, "[1-9][0-9]{0,3}|65535"),
    ("defer-accept", Text, "[1-9][0-9]{0,2}s|1h|off"),
    ("fastopen", Digits, "[1-9][0-9]{0,3}|65535"),
    ("user", Text, "[a-z_][a-z0-9_-]{0,8}"),
    ("group", Text, "[a-z_][a-z0-9_-]{0,8}"),
    ("cores", Text, "all|[0-9]|[0-4]-[4-9]|8,[0-4]-[4-9]"),
    ("accept", Text, "per-core|shared|single"),
    ("steer", Text, "cpu|hash|auto"),
    ("numa", Flag, "true|false"),
    ("udp", Flag, "true|false"),
    ("mode", Text, "echo|discard|accept-close|sink-source"),
    ("request-size", Digits, "[1-9][0-9]{0,8}|1073741824"),
    ("response-size", Digits, "0|[1-9][0-9]{0,8}|1073741824"),
    ("max-connections", Digits, "[1-9][0-9]{0,8}|4294967295"),
    ("overload", Text, "queue|reset"),
    ("idle-timeout", Text, "[1-9][0-9]{0,3}(ms|s)|1day|off"),
    ("keepalive", Text, "off|host|[1-9][0-9]{0,3}s|9h"),
    ("nodelay", Flag, "true|false"),
    ("zerocopy-threshold", Digits, "[1-9][0-9]{0,8}|1073741824"),
    ("drain-timeout", Text, "0s|[1-9][0-9]{0,3}(ms|s)|1day"),
    ("buffers", Digits, "1|2|4|256|32768"),
    ("buffer-size", Digits, "64|[1-9][0-9]{2,5}|1048576"),
    ("spill", Digits, "1048576|[2-9][0-9]{6,12}|17592186044416"),
    ("huge-pages", Flag, "true|false"),
    ("busy-poll", Text, "[1-9][0-9]{0,5}(us)?|1ms"),
    ("spin-us", Digits, "0|[1-9][0-9]{0,5}|1000000"),
    ("metrics", Text, r"off|[1-9][0-9]{0,3}|(0\.0\.0\.0|\[::1\]):[1-9][0-9]{0,3}"),
    ("stats-interval", Text, "[1-9][0-9]{2,3}ms|1day|off"),
    ("json", Flag, "true|false"),
    ("without", List, "direct-descriptors|receive-credit|splice"),
];

/// Any set of options, each with good values.
fn any_options() -> impl Strategy<Value = Vec<Given>> {
    let option = |(name, form, pattern): &(&'static str, Form, &'static str)| {
        let (name, form) = (*name, *form);
        let most = if form == List { 3 } else { 1 };
        let values = proptest::collection::vec(proptest::string::string_regex(pattern).unwrap(), 1..=most);
        proptest::option::of(values.prop_map(move |values| Given { name, form, values }))
    };
    let options: Vec<_> = TABLE.iter().map(option).collect();
    options.prop_map(|options| options.into_iter().flatten().collect())
}

impl Given {
    fn as_arguments(&self) -> Vec<String> {
        let bare = self.form == Flag && self.name != "nodelay" && self.values[0] == "true";
        match bare {
            true => vec![format!("--{}", self.name)],
            false => self.values.iter().map(|value| format!("--{}={value}", self.name)).collect(),
        }
    }

    fn as_line(&self) -> String {
        let quoted: Vec<String> = self.values.iter().map(|value| format!("{value:?}")).collect();
        let value = match self.form {
            Flag | Digits => self.values[0].clone(),
            Text => quoted[0].clone(),
            List if quoted.len() == 1 => quoted[0].clone(),
            List => format!("[{}]", quoted.join(", ")),
        };
        format!("{} = {value}\n", self.name)
    }
}

fn from_arguments(given: &[Given]) -> Options {
    parse_options(given.iter().flat_map(Given::as_arguments)).unwrap()
}

fn from_file(given: &[Given]) -> Options {
    let text: String = given.iter().map(Given::as_line).collect();
    ConfigFile::parse(&text, "test").unwrap_or_else(|error| panic!("{error} in\n{text}")).options
}

fn names_said(options: &Options) -> BTreeSet<String> {
    options.fields_said().map(|field| field.replace('_', "-")).collect()
}

fn names(given: &[Given]) -> BTreeSet<String> {
    given.iter().map(|option| option.name.to_owned()).collect()
}

/// The arguments of clap, which derives them from the fields.
fn arguments() -> Vec<clap::Arg> {
    Options::augment_args(clap::Command::new("server")).get_arguments().cloned().collect()
}

#[test]
fn the_table_has_every_option() {
    let table: BTreeSet<_> = TABLE.iter().map(|(name, _, _)| (*name).to_owned()).collect();
    let options: BTreeSet<_> =
        arguments().iter().filter_map(clap::Arg::get_long).map(str::to_owned).collect();
    assert_eq!(table, options);
    assert_eq!(table.len(), TABLE.len());
}

proptest! {
    #[test]
    fn the_command_line_and_a_file_mean_the_same(given in any_options()) {
        let options = from_arguments(&given);
        prop_assert_eq!(names_said(&options), names(&given));
        prop_assert_eq!(options, from_file(&given));
    }

    #[test]
    fn options_written_as_a_file_are_read_again(given in any_options()) {
        let options = from_arguments(&given);
        let text = toml::to_string(&options).unwrap();
        prop_assert_eq!(ConfigFile::parse(&text, "test").unwrap().options, options);
    }

    #[test]
    fn the_options_in_force_ask_for_the_same_configuration(given in any_options()) {
        let config = from_arguments(&given).with_defaults();
        let in_force = Options::in_force(&config);
        prop_assert_eq!(in_force.with_defaults(), config);
        // As a report writes them.
        let text = serde_json::to_string(&in_force).unwrap();
        prop_assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), in_force);
    }

    #[test]
    fn the_command_line_wins_over_the_file(line in any_options(), file in any_options()) {
        let merged = from_arguments(&line).merge(from_file(&file));
        let (line_names, mut expected) = (names(&line), line);
        expected.extend(file.into_iter().filter(|option| !line_names.contains(option.name)));
        prop_assert_eq!(merged, from_arguments(&expected));
    }

    /// Checked options keep what [`Config`] promises.
    #[test]
    fn any_options_are_a_configuration_or_contradict(given in any_options()) {
        let options = from_arguments(&given);
        match options.check() {
            Ok(config) => {
                prop_assert!(!config.listen.is_empty());
                let different: BTreeSet<_> = config.listen.iter().collect();
                prop_assert_eq!(different.len(), config.listen.len());
                prop_assert!(config.accept == AcceptModel::PerCore || config.steer == Steer::Hash);
            }
            Err(error) => {
                let known = |name: &&str| TABLE.iter().any(|(option, _, _)| option == name);
                prop_assert!(error.options().iter().all(known), "{}", error);
            }
        }
    }
}

/// What `--help` says of an option.
fn help(argument: &clap::Arg) -> String {
    argument.get_help().unwrap().to_string()
}

/// Defaults that no value says.
const IN_WORDS: [&str; 5] = ["user", "group", "max-connections", "spill", "without"];

#[test]
fn the_defaults_in_the_help_are_those_of_the_configuration() {
    for argument in arguments() {
        let (name, help) = (argument.get_long().unwrap(), help(&argument));
        let default = help.split_once("[default: ").and_then(|(_, rest)| rest.strip_suffix(']'));
        let default = default.unwrap_or_else(|| panic!("--{name}: its default is not at the end of: {help}"));
        if IN_WORDS.contains(&name) {
            continue;
        }
        let options = parse_options([format!("--{name}={default}")]).unwrap();
        assert!(options.says(name), "--{name} {default}");
        assert_eq!(options.with_defaults(), Config::default(), "--{name} {default}");
        assert_ne!(options.json, Some(true));
    }
    let default = Config::default();
    assert_eq!((default.user, default.group), (None, None));
    assert_eq!((default.max_connections, default.spill), (None, None));
    assert!(default.without.is_empty());
    assert_eq!(crate::worker_plan::DEFAULT_SLOTS, 65_536, "--max-connections says so");
}

/// What does not fit is refused, and the largest and the smallest that fit are named.
#[test]
fn the_ranges_in_the_help_are_those_that_are_checked() {
    let mut ranges = 0;
    for argument in arguments() {
        let (name, help) = (argument.get_long().unwrap(), help(&argument));
        let words: Vec<&str> =
            help.split([' ', ':', ';', ',', '.', '\n']).filter(|word| !word.is_empty()).collect();
        let digits = |word: &str| word.starts_with(|letter: char| letter.is_ascii_digit());
        for range in words.windows(3).filter(|range| range[1] == "to" && digits(range[0]) && digits(range[2]))
        {
            ranges += 1;
            let accepts = |value: String| parse_options([format!("--{name}={value}")]).is_ok();
            let unit: String = range[2].trim_start_matches(|letter: char| letter.is_ascii_digit()).to_owned();
            let most: u64 = range[2].trim_end_matches(char::is_alphabetic).parse().unwrap();
            assert!(accepts(range[0].to_owned()) && accepts(range[2].to_owned()), "--{name}: {range:?}");
            assert!(!accepts(format!("{}{unit}", most + 1)), "--{name}: more than {range:?}");
            let least: u64 = range[0].trim_end_matches(char::is_alphabetic).parse().unwrap();
            if let Some(less) = least.checked_sub(1) {
                let unit = range[0].trim_start_matches(|letter: char| letter.is_ascii_digit());
                assert!(!accepts(format!("{less}{unit}")), "--{name}: less than {range:?}");
            }
        }
    }
    assert_eq!(ranges, 16);
}
