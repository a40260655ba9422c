//! `connlogctl directory import`: a file of one object a line, in one transaction.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;
use chrono::Utc;
use clap::Subcommand;
use connlog_model::clock::truncate_to_micros;
use connlog_store::Store;
use connlog_store::directory::{DirectoryEntry, Import};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Adds or changes what FILE names, by id; all of it or nothing.
    Import {
        /// One JSON object a line; see crates/ctl/README.md.
        file: PathBuf,
    },
}

pub(crate) async fn run(command: Command, store: &Store) -> anyhow::Result<()> {
    let Command::Import { file } = command;
    let name = file.display().to_string();
    let lines = BufReader::new(File::open(&file).with_context(|| format!("cannot open {name}"))?).lines();
    let mut connection = store.import_connection().await?;
    let import = Import::begin(&mut connection, truncate_to_micros(Utc::now())).await?;
    let mut entries = 0_usize;
    for (number, line) in (1..).zip(lines) {
        let line = line.with_context(|| format!("{name}, line {number}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let entry: DirectoryEntry = serde_json::from_str(&line).with_context(|| format!("{name}, line {number}"))?;
        import.apply(&entry).await.with_context(|| format!("{name}, line {number}"))?;
        entries += 1;
    }
    import.commit().await?;
    println!("imported {entries} entries");
    Ok(())
}
