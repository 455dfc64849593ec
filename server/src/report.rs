//! The final report: a table for people, one JSON object for programs.

use std::io::{self, Write};

use serde::Serialize;
use tune::cpu_set::Cpu;

use crate::stats::Counters;

/// What one core did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CoreReport {
    /// The CPU.
    pub core: Cpu,
    /// Its worker's counters.
    pub counters: Counters,
}

/// What the server did.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    total: Counters,
    cores: Vec<CoreReport>,
}

/// The fields of one row in JSON.
#[derive(Serialize)]
struct Row {
    #[serde(skip_serializing_if = "Option::is_none")]
    core: Option<Cpu>,
    #[serde(flatten)]
    counters: Counters,
    accept_local: Option<f64>,
    request_local: Option<f64>,
}

impl Row {
    fn new(core: Option<Cpu>, counters: Counters) -> Self {
        let (accept_local, request_local) = (counters.accept_local(), counters.request_local());
        Self { core, counters, accept_local, request_local }
    }
}

#[derive(Serialize)]
struct Json {
    schema: u32,
    total: Row,
    cores: Vec<Row>,
}

impl Report {
    /// Adds the cores up.
    #[must_use]
    pub fn new(cores: Vec<CoreReport>) -> Self {
        let mut total = Counters::default();
        cores.iter().for_each(|core| total += core.counters);
        Self { total, cores }
    }

    /// Writes one JSON object: `schema`, `total`, `cores[]`. Shares are 0 to 1, null without samples; bytes are counted in
    /// user space.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let json = Json {
            schema: 1,
            total: Row::new(None, self.total),
            cores: self.cores.iter().map(|core| Row::new(Some(core.core), core.counters)).collect(),
        };
        serde_json::to_writer(&mut *out, &json)?;
        writeln!(out)
    }

    /// Writes the table, one row for each core in the order of `--cores`, then the total.
    ///
    /// # Errors
    /// If writing fails.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let header = ["core", "accepted", "open", "bytes in", "bytes out", "accept-local", "request-local"];
        let mut rows = vec![header.map(str::to_owned)];
        rows.extend(self.cores.iter().map(|core| cells(core.core.to_string(), &core.counters)));
        rows.push(cells("total".to_owned(), &self.total));
        let widths: [usize; 7] =
            std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
        for row in rows {
            let line: Vec<String> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            writeln!(out, "{}", line.join("  "))?;
        }
        Ok(())
    }
}

fn cells(core: String, counters: &Counters) -> [String; 7] {
    let percent =
        |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
    [
        core,
        counters.accepted.to_string(),
        counters.open.to_string(),
        counters.bytes_in.to_string(),
        counters.bytes_out.to_string(),
        percent(counters.accept_local()),
        percent(counters.request_local()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let counters = Counters {
            accepted: 3,
            bytes_in: 10,
            bytes_out: 10,
            accept_samples: 2,
            accept_local_samples: 1,
            ..Counters::default()
        };
        Report::new(vec![CoreReport { core: 4, counters }, CoreReport { core: 1, counters }])
    }

    #[test]
    fn json_has_the_total_and_the_cores_in_order() {
        let mut out = Vec::new();
        report().write_json(&mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["total"]["accepted"], 6);
        assert_eq!(json["total"]["accept_local"], 0.5);
        assert_eq!(json["total"]["request_local"], serde_json::Value::Null);
        assert_eq!(json["cores"][0]["core"], 4);
        assert_eq!(json["cores"][1]["bytes_out"], 10);
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
    }

    #[test]
    fn the_table_is_aligned() {
        let mut out = Vec::new();
        report().write_table(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lengths: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lengths.len(), 4);
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
        assert!(text.contains("50.0 %") && text.contains("  -"), "{text}");
    }
}
