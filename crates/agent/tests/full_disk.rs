//! A full disk: an append fails with a clear error, costs nothing that was accepted, and works again when there is room.
//!
//! The disk is a small tmpfs in a mount namespace of its own, in which this test program runs again.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use connlog_agent::spool::{Record, Spool, SpoolError};

/// Names the small disk to the program that runs on it.
const DISK_VARIABLE: &str = "CONNLOG_TEST_SMALL_DISK";

#[test]
fn an_append_to_a_full_disk_fails_clearly_and_a_later_one_works() {
    let disk = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=512k tmpfs '{0}' && exec '{1}' --exact --ignored --nocapture on_a_small_disk",
        disk.path().display(),
        std::env::current_exe().unwrap().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).env(DISK_VARIABLE, disk.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "runs on the small disk that the other test makes"]
fn on_a_small_disk() {
    let disk = PathBuf::from(std::env::var_os(DISK_VARIABLE).unwrap());
    let (ballast, folder) = (disk.join("ballast"), disk.join("spool"));
    fs::write(&ballast, vec![0; 200 << 10]).unwrap();
    // Its own bound is far beyond the disk, so that it is the disk that ends it.
    let (mut spool, _) = Spool::open(&folder, 64 << 20, |_| None).unwrap();
    let payload = [7; 300];
    let mut accepted = Vec::new();
    let error = loop {
        match spool.append(&[&payload]) {
            Ok(seq) => accepted.push(seq),
            Err(error) => break error,
        }
    };
    assert!(accepted.len() > 300, "{} were accepted", accepted.len());
    let SpoolError::Write(cause) = &error else { panic!("{error}") };
    assert_eq!(cause.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().starts_with("cannot write the spool: "), "{error}");
    assert!(matches!(spool.append(&[&payload]), Err(SpoolError::Write(_))), "still full");

    fs::remove_file(&ballast).unwrap();
    accepted.push(spool.append(&[&payload]).unwrap());
    drop(spool);
    let (spool, damage) = Spool::open(&folder, 64 << 20, |_| None).unwrap();
    assert_eq!((damage.lost, damage.tail_bytes), (vec![], 0));
    let records = spool.read_after(0, usize::MAX, usize::MAX).unwrap();
    let found: Vec<u64> = records.iter().map(Record::seq).collect();
    assert_eq!(found, accepted, "what was accepted, and nothing else");
    assert!(records.iter().all(|record| matches!(record, Record::Event { .. })));
}
