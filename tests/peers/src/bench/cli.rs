//! The options of `peers bench`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, value_parser};
use lab::interrupt::Interrupt;
use lab::json_file::JsonFile;
use lab::machine::Machine;
use tune::cpu_set::CpuSet;

use super::contender::Contender;
use super::floor::Floor;
use super::peer::Peer;
use super::priority::Priority;
use super::report::Results;
use super::rounds::{self, Plan};
use super::scenario::{DEFAULT, Scenario};
use super::turn::Setup;
use crate::cores::Cores;

/// Rounds, and those of --quick: even, so that each order comes equally often, and at least 6, so that a
/// difference can be told.
const ROUNDS: [u16; 2] = [30, 6];

/// Length of a turn. Many short ones: a virtual CPU gets faster and slower within a second, and what both of
/// a pair have suffered cancels out. On a busy machine 9 rounds of 1 s said 0.98, 0.91 and 1.06 of two
/// servers with 50, 500 and 1000 connections, and 30 rounds of 200 ms 1.00, 0.99 and 0.99; of one server
/// against itself 30 of 150 ms said 1.00 and 1.00.
const DURATION: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(150)];

/// Times that a turn may have nothing come back before it has failed.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Options of `peers bench`.
///
/// Every contender is pinned to --server-cores, the client to --client-cores. They take turns, in one order
/// and then in the reverse one. CPU time is that of all threads of the server's process (user and system)
/// from when all connections are open to the last answer. Ratios are of the first contender over another:
/// below 1 the first uses less.
///
/// Exit code: 0 if every byte came back right, 1 if not or if the measurement could not take place, 2 on a
/// usage error, 128 + signal if stopped by one.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// CPUs of the servers.
    #[arg(long, value_name = "LIST", value_parser = Cores::parse, default_value = "0")]
    server_cores: Cores,
    /// CPUs of the client, one thread each; others than the servers'.
    #[arg(long, value_name = "LIST", value_parser = Cores::parse, default_value = "1")]
    client_cores: Cores,
    /// What to measure: echo-SIZExCONNECTIONS, the same with xDEPTH or -nCOUNT (so many messages on each
    /// connection, again and again on new ones), connect-reset, connect-echo, backlog-CONNECTIONS (so many
    /// that wait, each with a message, while the server is stopped, are worked off when it goes on; again and
    /// again), open-PERCENT (open loop at a share of the best closed-loop rate of the other contenders),
    /// idle-memory.
    #[arg(long, value_name = "SCENARIO,…", value_delimiter = ',', default_values_t = DEFAULT.map(|name| name.parse::<Scenario>().expect("named above")))]
    only: Vec<Scenario>,
    /// Rounds that count, 1 to 200; fewer than 6 cannot tell a difference [default: 30, with --quick 6].
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=200))]
    rounds: Option<u16>,
    /// Rounds that may be repeated in each scenario because they were disturbed, 0 to 1000 [default: as many
    /// as --rounds].
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(0..=1000))]
    repeats: Option<u16>,
    /// Length of each contender's turn in a round [default: 200ms, with --quick 150ms].
    #[arg(long, value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// 6 rounds of 150 ms.
    #[arg(long)]
    quick: bool,
    /// Peers of `server` [default: all but bare-ring that this executable contains and this machine has].
    #[arg(long, value_enum, value_delimiter = ',', conflicts_with_all = ["a", "b"])]
    peers: Option<Vec<Peer>>,
    /// More arguments for `server`, separated by spaces.
    #[arg(long, value_name = "ARGS", default_value = "", hide_default_value = true, allow_hyphen_values = true, conflicts_with_all = ["a", "b"])]
    server_args: String,
    /// Measure this command instead of `server`: NAME=COMMAND, words separated by spaces. COMMAND begins with
    /// server, the name of a peer, or a path; {port} and {cores} in it are replaced, and without {port} "--cores {cores}
    /// --listen 127.0.0.1:{port}" is added.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = Contender::parse, requires = "b")]
    a: Option<Contender>,
    /// Measure this command instead of the peers.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = Contender::parse, requires = "a")]
    b: Option<Contender>,
    /// The client sleeps when there is nothing to do, instead of polling.
    #[arg(long)]
    client_sleeps: bool,
    /// Nice value of the client, the servers and, while it runs, of their session (/proc/PID/autogroup), -20
    /// to 19: with less than 0 (as root) other work on the machine disturbs less.
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = value_parser!(i32).range(-20..=19))]
    nice: Option<i32>,
    /// Write the raw figures of every round to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write what the tables have, without the rounds, to this file, as JSON: of each figure median, least
    /// and greatest.
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
    /// Measure the floor too: what the kernel alone needs for half of each echo scenario's exchange, a null
    /// system call and an io_uring NOP, on the first of the server's CPUs; and show each contender as a per
    /// cent of it.
    #[arg(long)]
    floor: bool,
    /// Draw the medians into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print Markdown tables instead of those for people.
    #[arg(long)]
    markdown: bool,
}

/// Reads a length of a turn.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let range = Duration::from_millis(10)..=Duration::from_secs(3600);
    range.contains(&time).then_some(time).ok_or_else(|| "it is not in 10ms to 1h".to_owned())
}

/// Measures and prints.
///
/// # Errors
/// If it could not be measured, or not be printed.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let plan = args.plan()?;
    load::open_files::raise_limit()?;
    let _priority = args.nice.map(Priority::set).transpose()?;
    let json = args.json.as_deref().map(|path| JsonFile::open(path, "--json")).transpose()?;
    let summary = args.summary.as_deref().map(|path| JsonFile::open(path, "--summary")).transpose()?;
    let svg = args.svg.as_deref().map(|path| JsonFile::open(path, "--svg")).transpose()?;
    let interrupt = Interrupt::install().context("handle signals")?;
    let cores = plan.setup.server_cores.iter().chain(plan.setup.client_cores.iter().copied()).collect();
    // First: if it cannot be had, no long run is lost.
    let floor = args.floor.then(|| Floor::measure(plan.setup.server_cpu()?)).transpose()?;
    let (outcomes, ended) = rounds::run(&plan, &interrupt);
    // What fails after a signal fails because of it.
    let ended = ended.map_err(|error| interrupt.check().map_or_else(Into::into, |()| error));
    let ended = match ended {
        Err(error) if outcomes.is_empty() => return Err(error),
        // What was measured before is not lost.
        ended => ended,
    };
    let results = Results::new(Machine::read(cores), &plan, outcomes, floor);
    // The file first: standard output may be a pipe whose reader is gone. And if the file fails, the table is
    // not lost.
    let written = json.map_or(Ok(()), |file| file.write_as_json(&results));
    let summed = summary.map_or(Ok(()), |file| Ok(file.write(&serde_json::to_vec(&results.summary())?)?));
    let drawn = svg.map_or(Ok(()), |file| Ok(file.write(results.svg()?.as_bytes())?));
    let mut out = std::io::stdout().lock();
    let printed = if args.markdown { results.print_markdown(&mut out) } else { results.print(&mut out) };
    printed.and_then(|()| out.flush()).context("write the table to standard output")?;
    written.and(summed).and(drawn)?;
    let failures = results.failures();
    failures.iter().for_each(|failure| eprintln!("peers: {failure}"));
    ended?;
    let without = results.without_rounds();
    if !without.is_empty() {
        eprintln!("peers: no round counts of {}: see the raw rounds in --json for why", without.join(", "));
    }
    Ok(if failures.is_empty() && without.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl BenchArgs {
    fn plan(&self) -> anyhow::Result<Plan> {
        let (Cores(server), Cores(client)) = (&self.server_cores, &self.client_cores);
        let server_cores: CpuSet = server.iter().copied().collect();
        if let Some(both) = client.iter().find(|&&cpu| server_cores.contains(cpu)) {
            bail!("CPU {both} is in --server-cores and in --client-cores: give each its own");
        }
        let allowed = tune::affinity::allowed().context("sched_getaffinity")?;
        if let Some(cpu) = server.iter().chain(client).find(|&&cpu| !allowed.contains(cpu)) {
            bail!(
                "CPU {cpu} is not one on which this process may run ({allowed}); see --server-cores and \
                 --client-cores"
            );
        }
        let quick = usize::from(self.quick);
        let rounds = self.rounds.unwrap_or(ROUNDS[quick]);
        let setup = Setup {
            server_cores,
            client_cores: client.clone(),
            spin: !self.client_sleeps,
            duration: self.duration.unwrap_or(DURATION[quick]),
            timeout: TIMEOUT,
        };
        Ok(Plan {
            contenders: self.contenders()?,
            scenarios: self.only.clone(),
            rounds: rounds.into(),
            repeats: self.repeats.unwrap_or(rounds).into(),
            setup,
            floor: self.floor,
        })
    }

    fn contenders(&self) -> anyhow::Result<Vec<Contender>> {
        if let Some((a, b)) = self.a.clone().zip(self.b.clone()) {
            if a.name == b.name {
                bail!("--a and --b are both named {}: give them different names", a.name);
            }
            return Ok(vec![a, b]);
        }
        let server = Contender::parse("server=server").map_err(anyhow::Error::msg)?;
        let mut contenders = vec![server.with(&self.server_args)];
        for peer in self.peers.clone().unwrap_or_else(Peer::available) {
            contenders.push(peer.contender().map_err(anyhow::Error::msg)?);
        }
        Ok(contenders)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use lab::summary::{Comparison, Verdict};

    use super::*;

    #[derive(Parser)]
    struct Bench {
        #[command(flatten)]
        args: BenchArgs,
    }

    #[test]
    fn the_help_says_the_defaults() {
        let help = Bench::command().render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let [rounds, quick] = ROUNDS;
        assert!(help.contains(&format!("[default: {rounds}, with --quick {quick}]")), "{help}");
        let [duration, quick_duration] =
            DURATION.map(|duration| humantime::format_duration(duration).to_string());
        assert!(help.contains(&format!("[default: {duration}, with --quick {quick_duration}]")), "{help}");
        assert!(help.contains(&format!("{quick} rounds of {} ms", DURATION[1].as_millis())), "{help}");
    }

    #[test]
    fn by_default_a_difference_can_be_told() {
        for rounds in ROUNDS {
            let pairs = vec![(Some(2.0), Some(1.0)); rounds.into()];
            assert!(
                matches!(Comparison::of(&pairs).unwrap().verdict, Verdict::Difference(_)) && rounds % 2 == 0
            );
        }
    }

    #[test]
    fn contenders_are_the_server_and_its_peers_or_a_and_b() {
        let names = |args: &[&str]| -> Vec<String> {
            let args = Bench::try_parse_from([&["x"], args].concat()).unwrap().args;
            args.plan().unwrap().contenders.into_iter().map(|contender| contender.command.join(" ")).collect()
        };
        if !tune::affinity::allowed().unwrap().contains(1) {
            return eprintln!("SKIPPED: needs CPU 1");
        }
        let by_default = names(&["--server-args", "--buffers 64"]);
        assert_eq!(by_default.len(), 1 + Peer::available().len());
        assert!(
            by_default[0].starts_with("server ") && by_default[0].ends_with(" --buffers 64"),
            "{by_default:?}"
        );
        assert_eq!(
            names(&["--a", "x=/y/server -p {port}", "--b", "z=epoll {port}"]),
            ["/y/server -p {port}", "epoll {port}"]
        );
    }
}
