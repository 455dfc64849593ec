use std::fs;
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::kernel_files::KernelFiles;

fn file(text: &str) -> Node {
    Node::File { mode: 0o644, text: text.as_bytes().to_vec() }
}

fn unpacked(archive: &[u8]) -> Result<tempfile::TempDir, String> {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("archive");
    fs::write(&path, archive).unwrap();
    let directory = tempfile::tempdir().unwrap();
    unpack(&path, directory.path()).map_err(|error| error.to_string())?;
    Ok(directory)
}

#[test]
fn what_is_packed_is_unpacked_plain_and_compressed() {
    let long = format!("/sys/devices/{}/numa_node", "a-long-name/".repeat(20).trim_end_matches('/'));
    let tree = Tree::from([
        ("/proc/irq/40/smp_affinity_list".into(), Node::File { mode: 0o444, text: b"0-1\n".to_vec() }),
        ("/sys/class/net/eth0".into(), Node::Link("../../devices/net/eth0".into())),
        ("/sys/devices/net/eth0/queues/rx-0/rps_cpus".into(), file("3\n")),
        ("/sys/devices/net/eth0/queues/tx-0".into(), Node::Directory),
        (long.clone(), file("-1\n")),
    ]);
    for format in [Format::Tar, Format::TarGz] {
        let mut archive = Vec::new();
        pack(&tree, format, &mut archive).unwrap();
        let mut again = Vec::new();
        pack(&tree, format, &mut again).unwrap();
        assert_eq!(archive, again, "the same bytes");
        let directory = unpacked(&archive).unwrap();
        let files = KernelFiles::open(directory.path()).unwrap();
        assert_eq!(files.read("/sys/class/net/eth0/queues/rx-0/rps_cpus").unwrap(), "3");
        assert_eq!(files.read(&long).unwrap(), "-1");
        assert_eq!(files.list("/sys/class/net/eth0/queues").unwrap(), ["rx-0", "tx-0"]);
        assert!(files.check_writable("/proc/irq/40/smp_affinity_list").is_err(), "nobody may write it");
    }
}

/// An archive of one entry, whose name and target are written without any check.
fn entry(kind: EntryType, name: &str, target: &str, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend([0; 1024]);
    archive
}

#[test]
fn an_entry_that_lies_or_leads_outside_is_refused() {
    for (kind, name, target, size, reason) in [
        (EntryType::Regular, "../etc/passwd", "", 0, "leads out of the capture"),
        (EntryType::Regular, "/etc/passwd", "", 0, "leads out of the capture"),
        (EntryType::Regular, "sys/../../etc/passwd", "", 0, "leads out of the capture"),
        (EntryType::Regular, "etc/passwd", "", 0, "is not below proc, sys or corelocal"),
        (EntryType::Symlink, "sys/a", "/etc", 0, "leads out of the capture"),
        (EntryType::Symlink, "sys/a", "../../etc", 0, "leads out of the capture"),
        (EntryType::Symlink, "sys/a", "b/../../../etc", 0, "leads out of the capture"),
        (EntryType::Link, "sys/a", "/etc/passwd", 0, "is neither a file"),
        (EntryType::Char, "sys/a", "", 0, "is neither a file"),
        (EntryType::Fifo, "sys/a", "", 0, "is neither a file"),
        (EntryType::Regular, "sys/a", "", 1 << 40, "too large"),
    ] {
        let error = unpacked(&entry(kind, name, target, size)).err().unwrap();
        assert!(error.contains(reason), "{name} -> {target}: {error}");
        assert!(error.contains("no file that \"tune capture\" wrote"), "{error}");
    }
}

#[test]
fn nothing_is_written_through_a_link_of_the_archive() {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "sys/a", "../proc").unwrap();
    let mut header = Header::new_gnu();
    header.set_size(1);
    builder.append_data(&mut header, "sys/a/b", &b"x"[..]).unwrap();
    let error = unpacked(&builder.into_inner().unwrap()).err().unwrap();
    assert!(error.contains("sys/a/b: lies below a link"), "{error}");
}

#[test]
fn a_file_that_grows_for_ever_is_refused() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let mut header = Header::new_gnu();
    header.set_path("sys/a").unwrap();
    header.set_size(u64::from(u32::MAX));
    header.set_cksum();
    bomb.write_all(header.as_bytes()).unwrap();
    let error = unpacked(&bomb.finish().unwrap()).err().unwrap();
    assert!(error.contains("too large"), "{error}");
    assert!(unpacked(b"").err().unwrap().contains("empty"));
    assert!(unpacked(b"no archive at all, only a text that is longer than nothing").is_err());
}

#[test]
fn a_name_says_how_it_is_written() {
    for (name, format) in [
        ("a.tar", Some(Format::Tar)),
        ("a.tar.gz", Some(Format::TarGz)),
        ("/x/a.tgz", Some(Format::TarGz)),
        ("a.zip", None),
        ("tar", None),
    ] {
        assert_eq!(Format::of(Path::new(name)), format, "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_write_outside(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = unpacked(&bytes);
    }
}
