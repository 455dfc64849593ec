//! Against the real kernel: each in a process of its own, which is this test program again, because there is
//! no way back.

use std::process::Command;

use super::*;

/// Runs `body` in a process of its own. `test` is the name of the calling test.
fn in_a_process_of_its_own(test: &str, body: impl FnOnce()) {
    const MARK: &str = "CORELOCAL_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("privileges::tests::{test}"), "--nocapture"]).env(MARK, "1");
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn is_root(test: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("SKIPPED: {test}: needs root to become another user");
    }
    root
}

fn config(user: Option<&str>, group: Option<&str>) -> Config {
    let text = |text: &str| text.to_owned();
    Config { user: user.map(text), group: group.map(text), ..Config::default() }
}

/// A line of the calling thread's status file, without its name.
fn status(name: &str) -> Vec<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

fn assert_has_no_capabilities() {
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(set), ["0000000000000000"], "{set}");
    }
}

fn message(user: Option<&str>, group: Option<&str>) -> String {
    resolve(user, group).unwrap_err().to_string()
}

#[test]
fn without_user_and_group_only_no_new_privs_is_set() {
    in_a_process_of_its_own("without_user_and_group_only_no_new_privs_is_set", || {
        let before = ["Uid", "Gid", "Groups", "CapEff"].map(status);
        give_up(&config(None, None)).unwrap();
        assert_eq!(status("NoNewPrivs"), ["1"]);
        assert_eq!(["Uid", "Gid", "Groups", "CapEff"].map(status), before);
        let child = std::thread::spawn(|| status("NoNewPrivs")).join().unwrap();
        assert_eq!(child, ["1"], "threads inherit it");
    });
}

#[test]
fn root_becomes_a_user_with_its_groups_and_cannot_go_back() {
    let name = "root_becomes_a_user_with_its_groups_and_cannot_go_back";
    if !is_root(name) {
        return;
    }
    in_a_process_of_its_own(name, || {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        nix::unistd::setgroups(&[Gid::from_raw(0), Gid::from_raw(4242)]).unwrap();
        give_up(&config(Some("nobody"), None)).unwrap();
        assert_eq!(status("Uid"), vec![nobody.uid.to_string(); 4]);
        assert_eq!(status("Gid"), vec![nobody.gid.to_string(); 4]);
        assert!(
            status("Groups").iter().all(|group| group != "0" && group != "4242"),
            "{:?}",
            status("Groups")
        );
        assert_has_no_capabilities();
        assert_eq!(status("NoNewPrivs"), ["1"]);
        assert!(nix::unistd::setuid(Uid::from_raw(0)).is_err());
        assert!(nix::unistd::setgid(Gid::from_raw(0)).is_err());
        assert!(nix::unistd::setgroups(&[]).is_err());
    });
}

/// A user's rings count against its limit of locked memory, root's do not.
#[test]
fn the_limit_of_locked_memory_is_raised_as_far_as_possible() {
    let name = "the_limit_of_locked_memory_is_raised_as_far_as_possible";
    if !is_root(name) {
        return;
    }
    in_a_process_of_its_own(name, || {
        let maximum = Some(4 << 20);
        setrlimit(Resource::Memlock, Rlimit { current: Some(64 << 10), maximum }).unwrap();
        let capabilities = rustix::thread::capabilities(None).unwrap();
        let may_raise = capabilities.effective.contains(CapabilitySet::SYS_RESOURCE);
        give_up(&config(Some("nobody"), None)).unwrap();
        let expected = if may_raise { None } else { maximum };
        assert_eq!(getrlimit(Resource::Memlock).current, expected);
        crate::worker::Features::detect().expect("a ring of more than 64 KiB");
    });
}

/// glibc's wrappers change all threads; the system calls would change one.
#[test]
fn threads_that_are_there_already_become_the_user_as_well() {
    let name = "threads_that_are_there_already_become_the_user_as_well";
    if !is_root(name) {
        return;
    }
    in_a_process_of_its_own(name, || {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            let _ = gone.recv();
            status("Uid")
        });
        give_up(&config(Some("65534"), Some("65534"))).unwrap();
        drop(go);
        assert_eq!(other.join().unwrap(), ["65534"; 4]);
    });
}

#[test]
fn a_number_without_an_entry_needs_a_group() {
    let name = "a_number_without_an_entry_needs_a_group";
    assert!(message(Some("3999999999"), None).contains("give --group, too"));
    let identity = resolve(Some("3999999999"), Some("3999999998")).unwrap().unwrap();
    assert_eq!((identity.uid, identity.name.as_ref()), (Some(Uid::from_raw(3_999_999_999)), None));
    if !is_root(name) {
        return;
    }
    in_a_process_of_its_own(name, || {
        give_up(&config(Some("3999999999"), Some("3999999998"))).unwrap();
        assert_eq!(status("Uid"), ["3999999999"; 4]);
        assert_eq!(
            (status("Gid"), status("Groups")),
            (vec!["3999999998".to_owned(); 4], vec!["3999999998".to_owned()])
        );
    });
}

#[test]
fn a_group_alone_leaves_the_user() {
    let name = "a_group_alone_leaves_the_user";
    if !is_root(name) {
        return;
    }
    in_a_process_of_its_own(name, || {
        give_up(&config(None, Some("daemon"))).unwrap();
        let daemon = Group::from_name("daemon").unwrap().unwrap().gid.to_string();
        assert_eq!(status("Uid"), ["0"; 4]);
        assert_eq!(status("Gid"), vec![daemon.clone(); 4]);
        assert_eq!(status("Groups"), [daemon]);
    });
}

/// Changing from one user to another does not take capabilities away: without the capset there would be a way
/// back.
#[test]
fn a_user_with_capabilities_loses_them() {
    let name = "a_user_with_capabilities_loses_them";
    if !is_root(name) {
        return;
    }
    in_a_process_of_its_own(name, || {
        // This thread alone: the test program's other one would lose its capabilities.
        rustix::thread::set_keep_capabilities(true).unwrap();
        let first = rustix::process::Uid::from_raw(4001);
        rustix::thread::set_thread_res_uid(first, first, first).unwrap();
        let kept = CapabilitySet::SETUID | CapabilitySet::SETGID;
        let kept = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, kept).unwrap();
        give_up(&config(Some("4002"), Some("4002"))).unwrap();
        assert_eq!(status("Uid"), ["4002"; 4]);
        assert_has_no_capabilities();
    });
}

#[test]
fn who_may_not_become_another_user_is_told_what_it_takes() {
    let name = "who_may_not_become_another_user_is_told_what_it_takes";
    if !is_root(name) {
        return;
    }
    in_a_process_of_its_own(name, || {
        give_up(&config(Some("4001"), Some("4001"))).unwrap();
        give_up(&config(Some("4001"), Some("4001"))).expect("is that user already");
        let error = give_up(&config(Some("4002"), Some("4002"))).unwrap_err().to_string();
        assert!(error.starts_with("setgroups 4002: EPERM: ") && error.contains("start as root"), "{error}");
    });
}

#[test]
fn unknown_names_are_refused() {
    assert_eq!(
        message(Some("no-such-user"), None),
        "--user no-such-user: no such user here; see `getent passwd`"
    );
    assert_eq!(
        message(None, Some("no such group")),
        "--group no such group: no such group here; see `getent group`"
    );
    for user in ["", "-1", "4294967295", "4294967296"] {
        assert!(matches!(resolve(Some(user), None), Err(PrivilegeError::Unknown { .. })), "{user}");
    }
    // A name with a NUL is none either; the C library is not asked.
    assert!(resolve(Some("no\0body"), None).is_err());
}

#[test]
fn a_user_brings_its_group_unless_another_is_asked_for() {
    let entry = User::from_name("daemon").unwrap().unwrap();
    let identity = resolve(Some("daemon"), None).unwrap().unwrap();
    assert_eq!((identity.uid, identity.gid), (Some(entry.uid), entry.gid));
    assert_eq!(resolve(Some(&entry.uid.to_string()), None).unwrap().unwrap(), identity, "by number, too");
    let other = resolve(Some("daemon"), Some("4242")).unwrap().unwrap();
    assert_eq!((other.uid, other.gid), (Some(entry.uid), Gid::from_raw(4242)));
}

#[test]
fn io_uring_is_for_its_group_where_the_kernel_says_so() {
    for (disabled, group, allowed) in [
        (None, None, true),
        (Some(0), Some(-1), true),
        (Some(1), Some(-1), false),
        (Some(1), Some(7), true),
        (Some(1), Some(8), false),
        (Some(2), Some(7), false),
    ] {
        assert_eq!(may_use_io_uring(disabled, group, &[3, 7]), allowed, "{disabled:?} {group:?}");
    }
}
