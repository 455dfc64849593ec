//! The final report for programs: one JSON object on one line.

use std::io::{self, Write};

use serde::Serialize;
use tune::cpu_set::Cpu;

use super::{InForce, Report};
use crate::stats::{Counters, Sources};

/// The fields of one row.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    counters: Counters,
    accept_local: Option<f64>,
    request_local: Option<f64>,
    accept_from: Sources,
    request_from: Sources,
}

impl Row {
    fn new(counters: Counters, accept_from: Sources, request_from: Sources) -> Self {
        let (accept_local, request_local) = (counters.accept_local(), counters.request_local());
        Self { counters, accept_local, request_local, accept_from, request_from }
    }
}

#[derive(Serialize)]
struct Total {
    #[serde(flatten)]
    row: Row,
    accepted_spread: Option<f64>,
}

#[derive(Serialize)]
struct Core {
    core: Cpu,
    #[serde(flatten)]
    row: Row,
}

#[derive(Serialize)]
struct Json<'a> {
    schema: u32,
    #[serde(flatten)]
    in_force: &'a InForce,
    total: Total,
    cores: Vec<Core>,
}

pub(super) fn write(report: &Report, in_force: &InForce, out: &mut impl Write) -> io::Result<()> {
    let (mut accept_from, mut request_from) = (Sources::default(), Sources::default());
    for core in &report.cores {
        accept_from += &core.accept_from;
        request_from += &core.request_from;
    }
    let total = Total {
        row: Row::new(report.total, accept_from, request_from),
        accepted_spread: report.accepted_spread(),
    };
    let core = |core: &super::CoreReport| Core {
        core: core.core,
        row: Row::new(core.counters, core.accept_from.clone(), core.request_from.clone()),
    };
    let json = Json { schema: 1, in_force, total, cores: report.cores.iter().map(core).collect() };
    serde_json::to_writer(&mut *out, &json)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::tests::report;
    use super::*;
    use crate::config::{Config, Options, Steer};
    use crate::stats::Source;
    use crate::worker::Features;

    fn written(report: &Report) -> Value {
        let config = Config { steer: Steer::Auto, user: None, ..Config::default() };
        let features = Features { direct_descriptors: true, receive_credit: true, splice: false };
        let in_force = InForce { options: Options::in_force(&config), features };
        let mut out = Vec::new();
        write(report, &in_force, &mut out).unwrap();
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn it_has_the_total_and_the_cores_in_order() {
        let json = written(&report());
        assert_eq!(json["total"]["accepted"], 6);
        assert_eq!(json["total"]["accept_local"], 0.5);
        assert_eq!(json["total"]["request_local"], Value::Null);
        assert_eq!(json["total"]["accepted_spread"], 1.0);
        assert_eq!(json["cores"][0]["core"], 4);
        assert_eq!(json["cores"][1]["bytes_out"], 10);
        assert!(json["cores"][0].get("accepted_spread").is_none(), "{json}");
        assert_eq!(written(&Report::new(Vec::new()))["total"]["accepted_spread"], Value::Null);
    }

    #[test]
    fn it_says_what_was_in_force() {
        let json = written(&report());
        let options = &json["options"];
        assert_eq!(
            (&options["mode"], &options["steer"], &options["backlog"]),
            (&json!("echo"), &json!("auto"), &json!(4096))
        );
        assert_eq!((&options["metrics"], &options["user"]), (&json!("off"), &Value::Null));
        let features = json!({"direct_descriptors": true, "receive_credit": true, "splice": false});
        assert_eq!(json["features"], features);
    }

    #[test]
    fn it_says_which_cpus_samples_came_from() {
        let mut report = report();
        report.cores[0].accept_from = [(Source::Cpu(4), 1), (Source::Cpu(3), 2)].into_iter().collect();
        report.cores[1].accept_from = [(Source::Cpu(3), 1), (Source::Unknown, 5)].into_iter().collect();
        let json = written(&report);
        assert_eq!(json["cores"][0]["accept_from"], json!({"3": 2, "4": 1}));
        assert_eq!(json["cores"][0]["request_from"], json!({}));
        assert_eq!(json["total"]["accept_from"], json!({"3": 3, "4": 1, "unknown": 5}));
    }

    #[test]
    fn every_counter_is_in_it() {
        let mut report = report();
        report.cores[0].counters = Counters::numbered();
        let json = written(&report);
        let shown =
            |number: u64| json["cores"][0].as_object().unwrap().values().any(|value| *value == number);
        for (number, field) in (1..).zip(Counters::FIELDS) {
            assert!(shown(number), "{field} ({number}) in {json}");
        }
    }
}
