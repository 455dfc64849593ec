//! Gives a target every file of its corpus, and damaged ones, without a fuzzer. Taken in by
//! `tests/tune/fuzz_corpus.rs` and `tests/server/fuzz_corpus.rs`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// Every file of `corpus/NAME` as it is, and 256 with some bytes replaced, taken out or doubled.
pub(crate) fn replay(name: &str, target: fn(&[u8])) {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let corpus = above.map(|above| above.join("tests/fuzz/corpus").join(name)).find(|corpus| corpus.is_dir());
    let entries = fs::read_dir(corpus.unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<(_, Vec<u8>)> = entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert!(files.len() >= 3, "{name}: {}", files.len());
    for (path, bytes) in &files {
        let ran = catch_unwind(AssertUnwindSafe(|| target(bytes)));
        assert!(ran.is_ok(), "{}", path.display());
    }
    let damage = prop::collection::vec((any::<Index>(), 0..3_u8, any::<u8>()), 1..5);
    let config = Config { failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&(any::<Index>(), damage), |(file, damage)| {
        let mut bytes = file.get(&files).1.clone();
        for (at, how, byte) in damage {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.extend_from_within(at..),
            }
        }
        target(&bytes);
        Ok(())
    });
    if let Err(failed) = ran {
        panic!("{name}: {failed}");
    }
}
