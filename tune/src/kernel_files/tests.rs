use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn tree() -> (tempfile::TempDir, KernelFiles) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("sys/devices/pci0/0000:00:03.0/virtio2/net/eth0")).unwrap();
    fs::create_dir_all(root.join("sys/class/net")).unwrap();
    symlink("../../devices/pci0/0000:00:03.0/virtio2/net/eth0", root.join("sys/class/net/eth0")).unwrap();
    symlink("../../../virtio2", root.join("sys/class/net/eth0/device")).unwrap();
    symlink("../../../bus/drivers/virtio_net", root.join("sys/class/net/eth0/device/driver")).unwrap();
    fs::write(root.join("sys/devices/pci0/0000:00:03.0/numa_node"), "-1\n").unwrap();
    let files = KernelFiles::open(root).unwrap();
    (dir, files)
}

#[test]
fn links_are_followed_as_the_kernel_follows_them() {
    let (_dir, files) = tree();
    assert_eq!(
        files.resolve("/sys/class/net/eth0/device").unwrap(),
        "/sys/devices/pci0/0000:00:03.0/virtio2"
    );
    assert_eq!(files.read("/sys/class/net/eth0/device/../numa_node").unwrap(), "-1");
    assert_eq!(files.link_name("/sys/class/net/eth0/device/driver").unwrap(), "virtio_net");
    assert_eq!(files.read_optional("/sys/class/net/eth1/device").unwrap(), None);
    assert_eq!(files.list("/sys/class/net").unwrap(), ["eth0"]);
}

#[test]
fn no_path_leads_out_of_the_root() {
    let (dir, files) = tree();
    symlink("/etc/passwd", dir.path().join("sys/absolute")).unwrap();
    let error = files.read("/sys/absolute").unwrap_err().to_string();
    assert!(error.contains("leads to /etc/passwd, outside of"), "{error}");
    assert!(files.read(&format!("/{}etc/passwd", "../".repeat(40))).is_err());
}

#[test]
fn a_root_must_be_a_directory() {
    let error = KernelFiles::open("/nonexistent/root").err().unwrap().to_string();
    assert_eq!(error, "open root /nonexistent/root: ENOENT: no such file or directory");
    assert!(KernelFiles::open("/proc/version").is_err());
}

#[test]
fn what_is_live_goes_by_the_file_system_and_not_by_the_path() {
    for root in ["/", "/./", "/proc/self/root"] {
        assert!(KernelFiles::open(root).unwrap().is_live(), "{root}");
    }
    let (dir, files) = tree();
    assert!(!files.is_live());
    symlink("/proc", dir.path().join("proc")).unwrap();
    let files = KernelFiles::open(dir.path()).unwrap();
    assert!(!files.is_live(), "a link out of the root is not followed");
}

#[test]
fn a_write_replaces_a_plain_file_wholly_and_never_creates() {
    let (dir, files) = tree();
    let file = dir.path().join("sys/value");
    fs::write(&file, "00000000,00000003\n").unwrap();
    files.write_existing("/sys/value", "1").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "1\n");
    let error = files.write_existing("/sys/new", "1").unwrap_err();
    assert_eq!(error.to_string(), "write \"1\" to /sys/new: ENOENT: no such file or directory");
    assert!(!dir.path().join("sys/new").exists());
}

#[test]
fn a_file_nobody_may_write_is_refused_before_the_write() {
    let (dir, files) = tree();
    fs::create_dir_all(dir.path().join("proc/irq/36")).unwrap();
    let file = dir.path().join("proc/irq/36/smp_affinity_list");
    fs::write(&file, "0-1\n").unwrap();
    files.check_writable("/proc/irq/36/smp_affinity_list").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let error = files.check_writable("/proc/irq/36/smp_affinity_list").unwrap_err();
    assert_eq!(
        error.to_string(),
        "write to /proc/irq/36/smp_affinity_list: EPERM: the kernel manages this interrupt; \
         queues.irq = \"follow\" leaves it where it is and lays the queues out where they fire"
    );
}

#[test]
fn a_busy_interrupt_is_tried_again_and_other_errors_are_not() {
    let (dir, _) = tree();
    fs::write(dir.path().join("sys/value"), "0\n").unwrap();
    let calls = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let files = KernelFiles::with_writer(dir.path(), move |_: &Path, _: &str| {
        match seen.fetch_add(1, Ordering::Relaxed) {
            0 => Err(io::Error::from_raw_os_error(16)),
            1 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(5)),
        }
    })
    .unwrap();
    files.write_existing("/sys/value", "1").unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let error = files.write_existing("/sys/value", "1").unwrap_err().to_string();
    assert!(error.contains("EIO"), "{error}");
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}
