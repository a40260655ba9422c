//! The spool: durable, bounded, and readable whatever happens to its bytes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};

use connlog_agent::spool::{Damage, MIN_SPOOL_BYTES, Record, Spool, SpoolError};

/// A payload is its number in text; the number of the event is also its time.
fn payload(number: u64) -> Vec<u8> {
    format!("event {number}").into_bytes()
}

fn time_of(payload: &[u8]) -> Option<i64> {
    std::str::from_utf8(payload).ok()?.rsplit(' ').next()?.parse().ok()
}

fn open(folder: &Path) -> (Spool, Damage) {
    Spool::open(folder, 1 << 20, time_of).unwrap()
}

fn append(spool: &mut Spool, count: u64) {
    for _ in 0..count {
        let payload = payload(spool.last_seq() + 1);
        spool.append(&[&payload]).unwrap();
    }
}

fn events(spool: &Spool, after: u64) -> Vec<u64> {
    let records = spool.read_after(after, usize::MAX, usize::MAX).unwrap();
    records
        .into_iter()
        .filter_map(|record| match record {
            Record::Event { seq, payload: found } => {
                assert_eq!(found, payload(seq), "a record has the payload of its number");
                Some(seq)
            }
            Record::Lost(_) => None,
        })
        .collect()
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    paths.sort();
    paths
}

#[test]
fn what_was_appended_is_there_after_a_restart_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, damage) = open(folder.path());
    assert_eq!(damage, Damage::default());
    let id = spool.id();
    append(&mut spool, 5);
    assert_eq!(events(&spool, 0), [1, 2, 3, 4, 5]);
    assert_eq!(spool.read_after(2, 2, usize::MAX).unwrap().len(), 2);
    drop(spool);
    let (mut spool, damage) = open(folder.path());
    assert_eq!((spool.id(), damage), (id, Damage::default()));
    assert_eq!(events(&spool, spool.acked_seq()), [1, 2, 3, 4, 5]);
    spool.acknowledge(3).unwrap();
    append(&mut spool, 1);
    drop(spool);
    let (mut spool, _) = open(folder.path());
    assert_eq!(events(&spool, spool.acked_seq()), [4, 5, 6]);
    spool.acknowledge(6).unwrap();
    drop(spool);
    let (spool, _) = open(folder.path());
    assert_eq!((spool.last_seq(), events(&spool, spool.acked_seq())), (6, vec![]));
}

#[test]
fn one_process_owns_a_spool() {
    let folder = tempfile::tempdir().unwrap();
    let (_spool, _) = open(folder.path());
    assert!(matches!(Spool::open(folder.path(), 1 << 20, time_of), Err(SpoolError::Owned(_))));
}

#[test]
fn a_full_spool_gives_up_its_oldest_events_and_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(folder.path(), MIN_SPOOL_BYTES, time_of).unwrap();
    append(&mut spool, 1_000);
    spool.acknowledge(200).unwrap();
    append(&mut spool, 9_000);
    assert!(spool.bytes() <= MIN_SPOOL_BYTES, "{} bytes", spool.bytes());
    for _ in 0..2 {
        let lost = *spool.lost().unwrap();
        assert_eq!((lost.first_seq, lost.since_micros), (201, Some(201)), "what was acknowledged is not lost");
        assert_eq!((lost.until_micros, lost.cause), (i64::try_from(lost.last_seq).ok(), "spool full"));
        let kept = events(&spool, spool.acked_seq());
        assert_eq!(kept, (lost.last_seq + 1..=10_000).collect::<Vec<_>>());
        assert_eq!(lost.count() + kept.len() as u64, 9_800, "every event is kept or counted");
        let first = spool.read_after(200, 1, usize::MAX).unwrap().remove(0);
        assert_eq!((first.seq(), first), (lost.last_seq, Record::Lost(lost)));
        drop(spool);
        spool = Spool::open(folder.path(), MIN_SPOOL_BYTES, time_of).unwrap().0;
    }
    let lost = spool.lost().unwrap().last_seq;
    spool.acknowledge(lost).unwrap();
    assert_eq!(spool.lost(), None);
    append(&mut spool, 5_000);
    assert_eq!(spool.lost().unwrap().first_seq, lost + 1, "the next loss is one of its own");
}

#[test]
fn too_large_an_event_is_refused_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    assert!(matches!(spool.append(&[&vec![0; 70_000]]), Err(SpoolError::TooLarge(70_000))));
    append(&mut spool, 1);
    assert_eq!(events(&spool, 0), [1]);
    assert!(matches!(Spool::open(folder.path(), 10, time_of), Err(SpoolError::TooSmall)));
}

#[test]
fn a_batch_keeps_to_its_limits_around_damage_and_large_events() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    append(&mut spool, 20);
    drop(spool);
    let segment = segments(folder.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    let third = bytes.len() / 3;
    bytes[third] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (spool, damage) = open(folder.path());
    assert_eq!(damage.lost.len(), 1);
    for limit in 1..=20 {
        let (mut after, mut seen) = (0, Vec::new());
        while let Some(last) = {
            let records = spool.read_after(after, limit, usize::MAX).unwrap();
            assert!(records.len() <= limit, "{} records, at most {limit}", records.len());
            seen.extend(records.iter().map(Record::seq));
            records.last().map(Record::seq)
        } {
            after = last;
        }
        assert_eq!(seen, (1..=20).collect::<Vec<u64>>(), "each number once, the damaged one as a loss");
    }
    assert_eq!(spool.read_after(0, 20, 1).unwrap().len(), 1, "one record at least");
}

/// Every byte of a small spool, flipped in every bit, and every length it can be cut to.
#[test]
fn damage_at_any_byte_costs_the_damaged_record_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(folder.path());
    append(&mut spool, 6);
    drop(spool);
    let path = segments(folder.path()).remove(0);
    let intact = fs::read(&path).unwrap();
    let record = intact.len() / 6;
    for (byte, bit) in (0..intact.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut bytes = intact.clone();
        bytes[byte] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        let (mut spool, damage) = open(folder.path());
        let hit = (byte / record) as u64 + 1;
        let survivors: Vec<u64> = (1..=6).filter(|seq| *seq != hit).collect();
        assert_eq!(events(&spool, 0), survivors, "bit {bit} of byte {byte}");
        if hit == 6 {
            assert_eq!((damage.lost, damage.tail_bytes), (vec![], record as u64));
        } else {
            assert_eq!((damage.lost, damage.tail_bytes), (vec![(hit, hit)], 0));
            let lost = spool
                .read_after(0, usize::MAX, usize::MAX)
                .unwrap()
                .into_iter()
                .find(|it| matches!(it, Record::Lost(_)));
            assert_eq!(lost.unwrap().seq(), hit);
        }
        append(&mut spool, 1);
        assert_eq!(events(&spool, 0).last(), Some(&spool.last_seq()));
    }
    for len in 0..intact.len() {
        fs::write(&path, &intact[..len]).unwrap();
        let (mut spool, damage) = open(folder.path());
        let whole = (len / record) as u64;
        assert_eq!(events(&spool, 0), (1..=whole).collect::<Vec<_>>(), "cut to {len} bytes");
        assert_eq!((damage.lost, damage.tail_bytes), (vec![], (len % record) as u64));
        append(&mut spool, 1);
        assert_eq!(events(&spool, 0), (1..=whole + 1).collect::<Vec<_>>());
    }
}

#[test]
fn the_small_files_of_a_spool_may_be_damaged_too() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(folder.path(), MIN_SPOOL_BYTES, time_of).unwrap();
    append(&mut spool, 3_000);
    let first = spool.lost().unwrap().last_seq + 1;
    spool.acknowledge(first + 10).unwrap();
    append(&mut spool, 3_000);
    let first = spool.lost().unwrap().last_seq + 1;
    drop(spool);
    let others = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let others: Vec<PathBuf> = others.filter(|path| !segments(folder.path()).contains(path)).collect();
    assert_eq!(others.len(), 3, "lock, acked and lost: {others:?}");
    for path in others {
        let intact = fs::read(&path).unwrap();
        for byte in 0..intact.len() {
            let mut bytes = intact.clone();
            bytes[byte] ^= 0x40;
            fs::write(&path, bytes).unwrap();
            let (spool, _) = Spool::open(folder.path(), MIN_SPOOL_BYTES, time_of).unwrap();
            assert_eq!(events(&spool, 0), (first..=6_000).collect::<Vec<_>>(), "byte {byte} of {}", path.display());
            assert_eq!(spool.last_seq(), 6_000);
        }
        fs::write(&path, intact).unwrap();
    }
}
