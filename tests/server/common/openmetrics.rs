//! A strict reader of OpenMetrics 1.0 text: what the specification says MUST, as far as gauges, counters and
//! infos go.

use std::collections::BTreeMap;

/// The samples of an exposition by name and labels, as they are written: `name{label="value"}`.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    samples: BTreeMap<String, f64>,
    families: BTreeMap<String, Family>,
}

#[derive(Debug, Default)]
struct Family {
    kind: Option<String>,
    unit: Option<String>,
    help: Option<String>,
    has_samples: bool,
}

impl Exposition {
    /// # Panics
    /// If the text breaks a rule.
    pub(crate) fn read(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the last line is \"# EOF\"");
        assert!(!body.contains('\r'), "lines end with a line feed alone");
        let mut exposition = Self::default();
        let mut current = String::new();
        for line in body.lines() {
            assert!(!line.is_empty() && line == line.trim(), "blank: {line:?}");
            match line.strip_prefix("# ") {
                Some(comment) => exposition.take_comment(comment, &mut current),
                None => exposition.take_sample(line, &current),
            }
        }
        exposition.families.iter().for_each(|(name, family)| family.check(name));
        exposition
    }

    fn take_comment(&mut self, comment: &str, current: &mut String) {
        let mut parts = comment.splitn(3, ' ');
        let (Some(keyword), Some(name), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("neither HELP nor TYPE nor UNIT: # {comment}");
        };
        assert!(is_name(name), "name of {comment}");
        if name != current {
            assert!(!self.families.contains_key(name), "{name} is interleaved with another family");
            name.clone_into(current);
        }
        let family = self.families.entry(name.to_owned()).or_default();
        assert!(!family.has_samples, "{comment} comes after samples");
        let field = match keyword {
            "HELP" => &mut family.help,
            "TYPE" => &mut family.kind,
            "UNIT" => &mut family.unit,
            _ => panic!("neither HELP nor TYPE nor UNIT: # {comment}"),
        };
        assert!(field.replace(rest.to_owned()).is_none(), "{comment} comes twice");
    }

    fn take_sample(&mut self, line: &str, current: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let name = series.split('{').next().expect("there is a first part");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            check_labels(labels);
        }
        let family = self.families.get_mut(current).unwrap_or_else(|| panic!("{line} has no TYPE"));
        let suffix = name.strip_prefix(current).unwrap_or_else(|| panic!("{line} is not of {current}"));
        let kind = family.kind.as_deref().unwrap_or_else(|| panic!("{current} has no TYPE"));
        let expected = match kind {
            "counter" => "_total",
            "gauge" => "",
            "info" => "_info",
            other => panic!("type {other} of {current}"),
        };
        assert_eq!(suffix, expected, "suffix of {line}");
        let number: f64 = value.parse().unwrap_or_else(|_| panic!("value of {line}"));
        assert!(kind != "counter" || number >= 0.0 && number.is_finite(), "{line}");
        assert!(kind != "info" || number == 1.0, "{line}");
        family.has_samples = true;
        assert!(self.samples.insert(series.to_owned(), number).is_none(), "{series} comes twice");
    }

    /// The value of a series; `None` if there is no such series.
    pub(crate) fn get(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// The sum over the cores of a metric of the server; the name without its prefix.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let start = format!("corelocal_server_{name}{{");
        let values: Vec<f64> =
            self.samples.iter().filter(|(series, _)| series.starts_with(&start)).map(|(_, &v)| v).collect();
        assert!(!values.is_empty(), "no {start}…}} in {:#?}", self.samples);
        values.iter().sum()
    }

    /// The number of series.
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }
}

impl Family {
    fn check(&self, name: &str) {
        assert!(self.kind.is_some() && self.help.is_some(), "{name} has no TYPE or no HELP");
        for reserved in ["_total", "_info", "_created", "_bucket", "_count", "_sum"] {
            assert!(!name.ends_with(reserved), "{name} ends with a reserved suffix");
        }
        if let Some(unit) = &self.unit {
            assert!(name.ends_with(&format!("_{unit}")), "{name} does not end with its unit {unit}");
            assert_ne!(self.kind.as_deref(), Some("info"), "{name} has a unit");
        }
        let help = self.help.as_deref().unwrap_or_default();
        assert!(!help.contains('"') && !help.contains('\\'), "to be escaped: {help}");
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`
fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// `{name="value",name="value"}`, the values without anything to be escaped, names unique.
fn check_labels(labels: &str) {
    let inside = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let inside = inside.unwrap_or_else(|| panic!("labels {labels}"));
    let mut names = Vec::new();
    for label in inside.split(',') {
        let (name, value) = label.split_once('=').unwrap_or_else(|| panic!("labels {labels}"));
        assert!(is_name(name) && !name.contains(':') && !names.contains(&name), "labels {labels}");
        names.push(name);
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        assert!(value.is_some_and(|value| !value.contains(['"', '\\'])), "labels {labels}");
    }
}

#[cfg(test)]
mod tests {
    use super::Exposition;

    const GOOD: &str =
        "# HELP a_bytes A.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total{c=\"0\"} 7\n";

    #[test]
    fn the_reader_takes_what_is_right() {
        assert_eq!(Exposition::read(&format!("{GOOD}# EOF\n")).get("a_bytes_total{c=\"0\"}"), Some(7.0));
    }

    #[test]
    fn the_reader_refuses_what_is_wrong() {
        let damaged = [
            GOOD.to_owned(),
            format!("{GOOD}# EOF"),
            format!("{GOOD}{GOOD}# EOF\n"),
            format!("{}# EOF\n", GOOD.replace("_total", "")),
            format!("{}# EOF\n", GOOD.replace("# UNIT a_bytes", "# UNIT b_bytes")),
            format!("{}# EOF\n", GOOD.replace("a_bytes bytes", "a_bytes seconds")),
            format!("{}# EOF\n", GOOD.replace("# TYPE a_bytes counter\n", "")),
            format!("{}# EOF\n", GOOD.replace("c=\"0\"", "c=0")),
            format!("{}# EOF\n", GOOD.replace(" 7", " -7")),
            format!("{}# EOF\n", GOOD.replace(" 7", "")),
            format!("{GOOD}\n# EOF\n"),
            format!("{GOOD}a_bytes_total{{c=\"0\"}} 8\n# EOF\n"),
        ];
        for text in damaged {
            assert!(std::panic::catch_unwind(|| Exposition::read(&text)).is_err(), "{text}");
        }
    }
}
