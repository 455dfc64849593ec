//! A lab that is stopped, and a program of it that dies: nothing is left, whatever the moment.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Output};
use std::time::{Duration, SystemTime};

use lab::namespace::Namespace;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::{
    alone, assert_nothing_left, ends_within, host_state, lab, lacks, names, refusal, roles_of, stderr,
    wait_for, wait_for_role, wait_until_handled,
};

/// Starts a lab, sends `signal` so long after it handles that, and gives what is left of it.
fn stop_after(delay: Duration, signal: Signal) -> Output {
    let child = lab(&["--quick"]).spawn().expect("start the lab");
    wait_until_handled(&child, signal);
    if !ends_within(&child, delay) {
        stop(&child, signal);
    }
    assert_nothing_left(child)
}

fn stop(lab: &Child, signal: Signal) {
    kill_process(Pid::from_child(lab), signal).expect("kill");
}

/// Moments in a quick run: while the namespaces are made, while the first programs start, in each kind of
/// step.
fn moments() -> impl Iterator<Item = Duration> {
    [0, 1, 5, 20, 50, 120, 300, 600, 900, 950, 1000, 1500, 2000, 3000].into_iter().map(Duration::from_millis)
}

/// Moments of which nobody has thought, in the first rounds of a quick run.
fn random_moments(count: usize) -> impl Iterator<Item = Duration> {
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos();
    // Multiples of the golden ratio: random begin, evenly spread from there (Weyl).
    let mut place = seed as f64 * 1e-9;
    std::iter::repeat_with(move || {
        place = (place + 0.618_033_988_749_895).fract();
        Duration::from_secs_f64(place * 3.6)
    })
    .take(count)
}

/// The namespace of one end of a running lab's veth pair, held open; none if there is none yet.
fn hold_one_end(lab: &Child) -> Option<Namespace> {
    let directory = format!("/proc/{}/fd", lab.id());
    let mut numbers: Vec<u32> = names(&directory).iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let first = |kind: &str| {
        let paths = numbers.iter().map(|number| format!("{directory}/{number}"));
        paths
            .into_iter()
            .find(|path| fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with(kind)))
    };
    Namespace::open(&first("net:")?, &first("mnt:")?).ok()
}

/// The kernel takes a namespace apart when nothing holds it: no process, no descriptor, no mount, wherever
/// they are. With it goes its end of the veth pair, and so the end that is held here.
fn assert_the_other_end_goes(held: &Namespace) {
    wait_for("the other namespace still held: not gone", || {
        (held.run(|| names("/sys/class/net")).expect("enter") == ["lo"]).then_some(())
    });
}

#[test]
fn a_signal_ends_it_with_one_line_and_nothing_left() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let before = host_state();
    for (delay, signal) in moments().zip([Signal::INT, Signal::TERM, Signal::HUP].into_iter().cycle()) {
        let output = stop_after(delay, signal);
        let number = signal.as_raw();
        assert_eq!(output.status.code(), Some(128 + number), "{delay:?}: {output:?}");
        assert_eq!(stderr(&output), format!("lab: stopped by signal {number}; nothing is left behind\n"));
        assert_eq!(output.stdout, b"", "no table of half a run");
    }
    assert_eq!(before, host_state());
}

#[test]
fn even_a_kill_leaves_nothing() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let before = host_state();
    for program in [" server ", " load connect ", " load echo ", " tune "] {
        let lab = lab(&["--quick"]).spawn().unwrap();
        wait_for_role(lab.id(), program);
        let held = hold_one_end(&lab).expect("it has namespaces by now");
        stop(&lab, Signal::KILL);
        assert_nothing_left(lab);
        assert_the_other_end_goes(&held);
    }
    for delay in random_moments(15) {
        println!("SIGKILL after {delay:?}");
        let lab = lab(&["--quick"]).spawn().unwrap();
        assert!(!ends_within(&lab, delay), "it has ended by itself");
        let held = hold_one_end(&lab);
        stop(&lab, Signal::KILL);
        assert_eq!(assert_nothing_left(lab).status.signal(), Some(Signal::KILL.as_raw()));
        held.iter().for_each(assert_the_other_end_goes);
    }
    assert_eq!(before, host_state());
}

#[test]
fn a_program_that_dies_ends_it_with_one_line_and_nothing_left() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let before = host_state();
    for (program, message) in [
        (" server ", ": server failed (signal: 9 (SIGKILL))"),
        (" load connect ", ": load failed (signal: 9 (SIGKILL))"),
        (" load echo ", ": load failed (signal: 9 (SIGKILL))"),
    ] {
        let lab = lab(&[]).spawn().unwrap();
        // One that was found at its end is followed by another.
        wait_for("no end of the lab", || {
            let victims = roles_of(lab.id()).into_iter().filter(|role| role.command.contains(program));
            victims.for_each(|victim| _ = kill_process(victim.pid, Signal::KILL));
            ends_within(&lab, Duration::ZERO).then_some(())
        });
        let line = refusal(&assert_nothing_left(lab));
        assert!(line.contains(message), "{program}: {line}");
    }
    assert_eq!(before, host_state());
}

#[test]
fn the_json_file_of_a_run_that_is_stopped_is_what_it_was() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.json");
    for (old, signal) in [(None, Signal::KILL), (Some("old"), Signal::KILL), (Some("old"), Signal::TERM)] {
        if let Some(old) = old {
            fs::write(&path, old).unwrap();
        }
        let lab = lab(&["--quick", "--json", path.to_str().unwrap()]).spawn().unwrap();
        wait_for_role(lab.id(), " load echo ");
        stop(&lab, signal);
        assert_nothing_left(lab);
        assert_eq!(fs::read_to_string(&path).ok().as_deref(), old);
        assert_eq!(names(directory.path()).len(), usize::from(old.is_some()), "no other file");
    }
}

/// The results are there, and standard output takes no byte: the first signal finds nothing to stop, the
/// second ends it.
#[test]
fn a_second_signal_does_not_wait_for_standard_output() {
    if let Some(why) = lacks() {
        println!("SKIPPED: {why}");
        return;
    }
    let _alone = alone();
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("x.json");
    let (unread, full): (OwnedFd, OwnedFd) = rustix::pipe::pipe().unwrap();
    let size = rustix::pipe::fcntl_setpipe_size(&full, 4096).unwrap();
    fs::File::from(full.try_clone().unwrap()).write_all(&vec![b'x'; size]).unwrap();
    let lab =
        lab(&["--quick", "--rounds", "1", "--json", json.to_str().unwrap()]).stdout(full).spawn().unwrap();
    wait_for("no results", || fs::metadata(&json).ok().filter(|file| file.len() > 0));
    stop(&lab, Signal::TERM);
    assert!(!ends_within(&lab, Duration::from_millis(300)));
    stop(&lab, Signal::TERM);
    assert_eq!(assert_nothing_left(lab).status.code(), Some(128 + Signal::TERM.as_raw()));
    drop(unread);
}
