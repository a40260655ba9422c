//! The spool over folders whose files were changed at random: it opens, and what it still has is what was put in.
//!
//! A case that ever failed is kept beside this file, in `fuzz.proptest-regressions`, and tried first.

use std::fs;

use connlog_agent::spool::{Record, Spool};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn payload(number: u64) -> Vec<u8> {
    format!("event {number} {}", "x".repeat(usize::try_from(number * 7 % 90).unwrap_or(0))).into_bytes()
}

fn no_time(_: &[u8]) -> Option<i64> {
    None
}

/// A change of one file: which, where, and what.
#[derive(Debug, Clone)]
enum Change {
    Overwrite(prop::sample::Index, prop::sample::Index, Vec<u8>),
    Truncate(prop::sample::Index, prop::sample::Index),
    Append(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index),
    Replace(prop::sample::Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = || prop::collection::vec(any::<u8>(), 1..60);
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), index(), bytes()).prop_map(|(file, at, bytes)| Change::Overwrite(file, at, bytes)),
        2 => (index(), index()).prop_map(|(file, at)| Change::Truncate(file, at)),
        2 => (index(), bytes()).prop_map(|(file, bytes)| Change::Append(file, bytes)),
        1 => index().prop_map(Change::Remove),
        1 => (index(), bytes()).prop_map(|(file, bytes)| Change::Replace(file, bytes)),
    ]
}

fn apply(folder: &std::path::Path, change: &Change) {
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    let (Change::Overwrite(index, ..)
    | Change::Truncate(index, _)
    | Change::Append(index, _)
    | Change::Remove(index)
    | Change::Replace(index, _)) = change;
    let Some(file) = files.get(index.index(files.len().max(1))) else { return };
    let mut contents = fs::read(file).expect("a file");
    match change {
        Change::Overwrite(_, at, bytes) if !contents.is_empty() => {
            let at = at.index(contents.len());
            let end = (at + bytes.len()).min(contents.len());
            contents[at..end].copy_from_slice(&bytes[..end - at]);
        }
        Change::Truncate(_, at) if !contents.is_empty() => contents.truncate(at.index(contents.len())),
        Change::Append(_, bytes) => contents.extend(bytes),
        Change::Replace(_, bytes) => contents.clone_from(bytes),
        Change::Remove(_) => {
            fs::remove_file(file).expect("it is there");
            return;
        }
        Change::Overwrite(..) | Change::Truncate(..) => {}
    }
    fs::write(file, contents).expect("a file");
}

fn cases(number: u32) -> ProptestConfig {
    let beside_this_file = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { cases: number, failure_persistence: Some(Box::new(beside_this_file)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn whatever_happens_to_its_files_it_opens_and_gives_nothing_that_was_not_put_in(
        events in 1..60_u64, acknowledged in 0..60_u64, changes in prop::collection::vec(change(), 1..4),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut spool, _) = Spool::open(folder.path(), 1 << 20, no_time).expect("a new spool");
        for number in 1..=events {
            spool.append(&[&payload(number)]).expect("there is room");
        }
        spool.acknowledge(acknowledged.min(events)).expect("it is there");
        drop(spool);
        for change in &changes {
            apply(folder.path(), change);
        }
        let (mut spool, _) = Spool::open(folder.path(), 1 << 20, no_time).expect("damage is no reason not to go on");
        let mut last = 0;
        for record in spool.read_after(0, usize::MAX, usize::MAX).expect("it can be read") {
            if let Record::Event { seq, payload: found } = record {
                prop_assert!(seq > last, "numbers ascend");
                prop_assert_eq!(found, payload(seq));
                last = seq;
            }
        }
        let next = spool.append(&[b"another"]).expect("it goes on");
        prop_assert!(next > last);
        let found = spool.read_after(next - 1, usize::MAX, usize::MAX).expect("it can be read");
        prop_assert_eq!(found.len(), 1);
    }
}
