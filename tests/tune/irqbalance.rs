//! irqbalance: on captured trees with what a tree says of it, and the real one, in a mount namespace where `/run` is its
//! own and `/proc/irq` is read-only, so that it moves none of the machine's interrupts.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{Run, copy_of, is_root, profile, run, tune};
use lab::namespace::Namespace;
use rustix::mount::{MountFlags, mount_bind, mount_remount};
use rustix::process::{Pid, Signal, kill_process};
use tune::apply::Transaction;
use tune::host::{Host, InterfaceChoice, Irq, ToldMap};
use tune::irqbalance::{Irqbalance, ban};
use tune::journal::{Loaded, State};
use tune::kernel_files::KernelFiles;
use tune::setting::{Change, Setting, Value};

const TREE: &str = "corelocal/irqbalance.json";

fn irqs(numbers: &[u32]) -> BTreeSet<Irq> {
    numbers.iter().copied().map(Irq).collect()
}

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
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        fs::write(file.path(), text).unwrap();
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

/// Where irqbalances run that nobody else sees; one test at a time, since a process without a socket is looked for, too.
struct Machine {
    namespace: Namespace,
    _alone: MutexGuard<'static, ()>,
}

/// An irqbalance; killed when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine {
    /// `None`, and a line that says so, without root or without irqbalance.
    fn new() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        if !is_root() {
            return None;
        }
        if Command::new("irqbalance").arg("--version").output().is_err() {
            println!("SKIPPED: needs irqbalance");
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = Namespace::create().unwrap();
        let prepare = || {
            mount_bind("/proc/irq", "/proc/irq").unwrap();
            mount_remount("/proc/irq", MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
            fs::create_dir("/run/irqbalance").unwrap();
        };
        namespace.run(prepare).unwrap();
        Some(Self { namespace, _alone: alone })
    }

    fn inside<T: Send>(&self, work: impl FnOnce(&KernelFiles) -> T + Send) -> T {
        self.namespace.run(|| work(&KernelFiles::open("/").unwrap())).unwrap()
    }

    /// Starts one and waits until it answers.
    fn start(&self, arguments: &[&str]) -> Daemon {
        let daemon = self.inside(|_| {
            let mut command = Command::new("irqbalance");
            command.args(["--foreground", "--interval", "1"]).args(arguments);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Daemon).unwrap()
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.banned().iter().any(|(pid, _)| *pid == daemon.0.id()) {
            assert!(Instant::now() < deadline, "irqbalance does not answer: {:?}", self.read());
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    fn read(&self) -> Irqbalance {
        self.inside(Irqbalance::read)
    }

    /// What each daemon leaves alone.
    fn banned(&self) -> Vec<(u32, BTreeSet<Irq>)> {
        match self.read() {
            Irqbalance::Running(daemons) => {
                daemons.into_iter().map(|daemon| (daemon.pid, daemon.banned_irqs)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn lists(&self) -> Vec<BTreeSet<Irq>> {
        self.banned().into_iter().map(|(_, banned)| banned).collect()
    }

    /// The transaction with nothing in it but the ban: the machine's own interrupts are not a test's to move.
    fn apply(&self, numbers: &[u32]) -> Result<(), String> {
        self.inside(|files| {
            let lo = InterfaceChoice::Named("lo".parse().unwrap());
            let host = Host::read(files, &lo, &[], &ToldMap::default()).unwrap();
            let before = host.value(&Setting::IrqbalanceBan).ok_or("irqbalance is not there")?;
            let after = Value::from_irqs(&(&before.irqs() | &irqs(numbers)));
            let change = Change { setting: Setting::IrqbalanceBan, before, after };
            let state = State::open(&State::default_directory(files).unwrap(), files).unwrap();
            let begun = Transaction::begin(files, &state);
            begun
                .and_then(|mut begun| begun.write(&host, &[change], &[], |_| true))
                .map_err(|error| error.to_string())
        })
    }

    fn restore(&self) -> Run {
        self.inside(|_| tune().arg("restore").output().unwrap()).into()
    }
}

#[test]
fn the_real_one_is_told_in_addition_and_gets_back_what_we_added() {
    let Some(machine) = Machine::new() else { return };
    let _daemon = machine.start(&["--banirq=29"]);
    assert_eq!(machine.lists(), [irqs(&[29])]);
    machine.apply(&[28, 30]).unwrap();
    assert_eq!(machine.lists(), [irqs(&[28, 29, 30])]);
    machine.apply(&[30, 31]).unwrap();
    machine.inside(|files| ban(files, &irqs(&[33])).unwrap());
    let restored = machine.restore().expect(0).stdout;
    assert!(restored.contains("irqbalance/banned_irqs: 28 29 30 31 33 -> 29 33\n"), "{restored}");
    assert_eq!(machine.lists(), [irqs(&[29, 33])]);
    assert!(machine.restore().expect(0).stdout.starts_with("nothing to restore"));
}

/// Its parser stops at an IRQ 0 that is not the first.
#[test]
fn a_banned_irq_0_does_not_end_the_list() {
    let Some(machine) = Machine::new() else { return };
    let _daemon = machine.start(&[]);
    machine.inside(|files| ban(files, &irqs(&[0, 29])).unwrap());
    assert_eq!(machine.lists(), [irqs(&[0, 29])]);
    machine.apply(&[28]).unwrap();
    assert_eq!(machine.lists(), [irqs(&[0, 28, 29])]);
    machine.restore().expect(0);
    assert_eq!(machine.lists(), [irqs(&[0, 29])]);
}

#[test]
fn a_list_longer_than_it_reads_is_not_sent() {
    let Some(machine) = Machine::new() else { return };
    let _daemon = machine.start(&[]);
    let most: Vec<u32> = (100..220).collect();
    machine.apply(&most).unwrap();
    assert_eq!(machine.lists(), [irqs(&most)], "all that fits arrives");
    let message = machine.apply(&[300]).unwrap_err();
    assert!(message.contains("121 interrupts take more"), "{message}");
    assert_eq!(machine.lists(), [irqs(&most)]);
    machine.restore().expect(0);
    assert_eq!(machine.lists(), [irqs(&[])]);
}

#[test]
fn a_restart_forgets_the_bans_which_restore_does_not_mind() {
    let Some(machine) = Machine::new() else { return };
    let daemon = machine.start(&[]);
    machine.apply(&[28]).unwrap();
    drop(daemon); // by SIGKILL: its socket stays
    let sockets = machine.inside(|_| fs::read_dir("/run/irqbalance").unwrap().count());
    assert_eq!(sockets, 1, "a stale socket");
    let _daemon = machine.start(&["--banirq=29"]);
    assert_eq!(machine.lists(), [irqs(&[29])]);
    let restored = machine.restore().expect(0).stdout;
    assert!(restored.contains("irqbalance has ended or was restarted since"), "{restored}");
    assert_eq!(machine.lists(), [irqs(&[29])]);
}

#[test]
fn a_stale_socket_is_no_irqbalance() {
    let Some(machine) = Machine::new() else { return };
    let daemon = machine.start(&[]);
    machine.apply(&[28]).unwrap();
    drop(daemon);
    assert_eq!(machine.read(), Irqbalance::Absent);
    let message = machine.apply(&[30]).unwrap_err();
    assert!(message.contains("not there"), "{message}");
    let restored = machine.restore().expect(0).stdout;
    assert!(restored.contains("irqbalance has ended or was restarted since"), "{restored}");
}

#[test]
fn of_two_each_is_told_and_each_keeps_its_own() {
    let Some(machine) = Machine::new() else { return };
    let _one = machine.start(&["--banirq=29"]);
    let _other = machine.start(&["--banirq=31"]);
    machine.apply(&[28]).unwrap();
    let mut lists = machine.lists();
    lists.sort();
    assert_eq!(lists, [irqs(&[28, 29]), irqs(&[28, 31])]);
    machine.restore().expect(0);
    let mut lists = machine.lists();
    lists.sort();
    assert_eq!(lists, [irqs(&[29]), irqs(&[31])]);
}

/// Where there is no `/run/irqbalance` it takes an abstract address.
#[test]
fn one_without_a_directory_is_found_at_its_abstract_socket() {
    let Some(machine) = Machine::new() else { return };
    machine.inside(|_| fs::remove_dir("/run/irqbalance").unwrap());
    let _daemon = machine.start(&["--banirq=29"]);
    machine.apply(&[28]).unwrap();
    assert_eq!(machine.lists(), [irqs(&[28, 29])]);
    machine.restore().expect(0);
    assert_eq!(machine.lists(), [irqs(&[29])]);
}

/// As in a container that does not have its socket.
#[test]
fn one_that_cannot_be_reached_is_not_taken_for_none() {
    let Some(machine) = Machine::new() else { return };
    let daemon = machine.start(&[]);
    machine.inside(|_| fs::remove_dir_all("/run/irqbalance").unwrap());
    let Irqbalance::Unknown(reason) = machine.read() else { panic!("{:?}", machine.read()) };
    assert!(reason.contains(&format!("process {} and has no socket here", daemon.0.id())), "{reason}");
}

/// It lets two wait; nobody waits for ever.
#[test]
fn one_that_hangs_is_given_up_every_time() {
    let Some(machine) = Machine::new() else { return };
    let daemon = machine.start(&[]);
    kill_process(Pid::from_child(&daemon.0), Signal::STOP).unwrap();
    for time in 0..4 {
        let Irqbalance::Unknown(reason) = machine.read() else { panic!("{:?}", machine.read()) };
        assert!(reason.contains("no answer within 3 s"), "{time}: {reason}");
    }
    kill_process(Pid::from_child(&daemon.0), Signal::CONT).unwrap();
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

/// Somebody else at the socket hears nothing: only root can have put irqbalance there.
#[test]
fn a_socket_of_another_user_is_not_asked() {
    let Some(machine) = Machine::new() else { return };
    let path = "/run/irqbalance/irqbalance77.sock";
    let heard = machine.inside(|files| {
        std::os::unix::fs::chown("/run/irqbalance", Some(65534), None).unwrap();
        // The peer's user is that of the process that listens.
        let script = format!(
            "import os, socket\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\ns.bind('{path}')\ns.listen()\n\
             print('up', flush=True)\nprint(len(s.accept()[0].recv(99)), flush=True)"
        );
        let mut python = Command::new("python3");
        let mut child = python.args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = io::BufRead::lines(io::BufReader::new(child.stdout.take().unwrap()));
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        let Irqbalance::Unknown(reason) = Irqbalance::read(files) else { panic!() };
        assert!(reason.contains("belongs to user 65534, not to root"), "{reason}");
        let heard = lines.next().unwrap().unwrap();
        child.wait().unwrap();
        heard
    });
    assert_eq!(heard, "0");
}

/// Below a root where the socket and the program that speaks to it are links to the real ones.
#[test]
fn a_script_tells_the_real_one_and_its_undo_file_gives_back() {
    let Some(machine) = Machine::new() else { return };
    if Command::new("socat").arg("-V").output().is_err() {
        println!("SKIPPED: needs socat");
        return;
    }
    let daemon = machine.start(&["--banirq=24"]);
    let pid = daemon.0.id();
    let tree = tree_of(&format!("{{\"pid\":{pid},\"banned_irqs\":[24]}}"));
    let (place, socket) = (tempfile::tempdir().unwrap(), format!("run/irqbalance/irqbalance{pid}.sock"));
    let script = place.path().join("script.sh");
    fs::write(&script, auto(tree.path(), "script").expect(0).stdout).unwrap();
    for directory in ["bin", "run/irqbalance"] {
        fs::create_dir_all(tree.path().join(directory)).unwrap();
    }
    symlink(format!("/{socket}"), tree.path().join(&socket)).unwrap();
    symlink("/usr/bin/socat", tree.path().join("bin/socat")).unwrap();
    let sh = |file: &Path| -> Run {
        let mut command = Command::new("sh");
        command.arg(file).env("TUNE_ROOT", tree.path());
        machine.inside(|_| command.output().unwrap()).into()
    };
    let done = sh(&script).expect(0);
    assert!(done.stdout.contains(&format!("irqbalance/{pid}: 24 -> 24 38 39\n")), "{}", done.stdout);
    assert_eq!(machine.lists(), [irqs(&[24, 38, 39])]);
    assert_eq!(sh(&script).expect(0).stdout, "nothing to do\n");
    sh(Path::new(done.stdout.lines().last().unwrap().rsplit(' ').next().unwrap())).expect(0);
    assert_eq!(machine.lists(), [irqs(&[24])]);
}
