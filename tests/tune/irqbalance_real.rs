//! The real irqbalance, in a mount namespace where `/run` is its own and `/proc/irq` is read-only, so that it
//! moves none of the machine's interrupts.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test, in helpers too")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{Run, copy_of, is_root, profile, run, tune};
use lab::namespace::Namespace;
use rustix::mount::{MountFlags, mount_bind, mount_remount};
use rustix::process::{Pid, Signal, Uid, kill_process};
use rustix::thread::set_thread_res_uid;
use tune::apply::Transaction;
use tune::host::{Host, InterfaceChoice, Irq, ToldMap};
use tune::irqbalance::{Irqbalance, ban};
use tune::journal::State;
use tune::kernel_files::KernelFiles;
use tune::setting::{Change, Setting, Value};

fn irqs(numbers: &[u32]) -> BTreeSet<Irq> {
    numbers.iter().copied().map(Irq).collect()
}

/// Where irqbalances run that nobody else sees; one test at a time, since a process without a socket is
/// looked for, too.
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
    /// `None`, and a line that says so, without root or without irqbalance, or where another one runs.
    fn new() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        if !is_root() {
            return None;
        }
        // Before anything is run: to another test an `irqbalance --version` is a process without a socket,
        // too.
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        if Command::new("irqbalance").arg("--version").output().is_err() {
            println!("SKIPPED: needs irqbalance");
            return None;
        }
        let namespace = Namespace::create().unwrap();
        let prepare = || {
            mount_bind("/proc/irq", "/proc/irq").unwrap();
            mount_remount("/proc/irq", MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
            fs::create_dir("/run/irqbalance").unwrap();
        };
        namespace.run(prepare).unwrap();
        let machine = Self { namespace, _alone: alone };
        // One of the machine itself, or of another test run, is a process whose socket is not here.
        match machine.read() {
            Irqbalance::Absent => Some(machine),
            other => {
                println!("SKIPPED: needs a machine without an irqbalance of its own: {other:?}");
                None
            }
        }
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
            thread::sleep(Duration::from_millis(20));
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

/// Somebody else at the socket hears nothing: only root can have put irqbalance there.
#[test]
fn a_socket_of_another_user_is_not_asked() {
    let Some(machine) = Machine::new() else { return };
    let heard = machine.inside(|files| {
        chown("/run/irqbalance", Some(65534), None).unwrap();
        let listener = thread::spawn(|| {
            // The peer's user is that of the thread that listens.
            let nobody = Uid::from_raw(65534);
            set_thread_res_uid(nobody, nobody, nobody).unwrap();
            UnixListener::bind("/run/irqbalance/irqbalance77.sock").unwrap()
        });
        let listener = listener.join().unwrap();
        let Irqbalance::Unknown(reason) = Irqbalance::read(files) else { panic!() };
        assert!(reason.contains("belongs to user 65534, not to root"), "{reason}");
        io::read_to_string(listener.accept().unwrap().0).unwrap()
    });
    assert_eq!(heard, "");
}

/// Below a root where the socket and the program that speaks to it are links to the real ones.
#[test]
fn a_script_tells_the_real_one_and_its_undo_file_gives_back() {
    let Some(machine) = Machine::new() else { return };
    let path = std::env::var_os("PATH").unwrap();
    let mut programs = std::env::split_paths(&path).map(|directory| directory.join("socat"));
    let Some(socat) = programs.find(|program| program.is_file()) else {
        println!("SKIPPED: needs socat");
        return;
    };
    let daemon = machine.start(&["--banirq=24"]);
    let pid = daemon.0.id();
    let tree = copy_of("virtio-2cpu");
    let told = format!("{{\"daemons\":[{{\"pid\":{pid},\"banned_irqs\":[24]}}]}}\n");
    fs::write(tree.path().join("corelocal/irqbalance.json"), told).unwrap();
    let (place, socket) = (tempfile::tempdir().unwrap(), format!("run/irqbalance/irqbalance{pid}.sock"));
    let script = place.path().join("script.sh");
    fs::write(&script, run(tree.path(), ["script", profile("auto.toml").to_str().unwrap()]).expect(0).stdout)
        .unwrap();
    for directory in ["bin", "run/irqbalance"] {
        fs::create_dir_all(tree.path().join(directory)).unwrap();
    }
    symlink(format!("/{socket}"), tree.path().join(&socket)).unwrap();
    symlink(socat, tree.path().join("bin/socat")).unwrap();
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
