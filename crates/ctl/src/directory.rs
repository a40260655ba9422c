//! `connlogctl directory import`: a file of one object a line, in one transaction.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use chrono::Utc;
use clap::Subcommand;
use connlog_model::clock::truncate_to_micros;
use connlog_store::directory::{DirectoryEntry, Import};
use connlog_store::{Store, StoreError};

/// Some editors put it at the start of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';

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
    let mut import = Import::begin(&mut connection, truncate_to_micros(Utc::now())).await?;
    let at = |number: usize| format!("{name}, line {number}");
    // The line of each entry.
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(lines) {
        let line = line.with_context(|| at(number))?;
        if line.trim().is_empty() {
            continue;
        }
        if line.starts_with(BYTE_ORDER_MARK) {
            let advice = "it begins with a byte order mark (U+FEFF): save the file as UTF-8 without one";
            return Err(anyhow!(advice).context(at(number)));
        }
        let entry: DirectoryEntry = serde_json::from_str(&line).with_context(|| at(number))?;
        import.apply(&entry).await.with_context(|| at(number))?;
        entries.push(number);
    }
    match import.commit().await {
        Err(StoreError::Unknown { entry, field, id }) => {
            let number = entries.get(entry).copied().unwrap_or_default();
            Err(anyhow!("{field} {id} is not in the directory").context(at(number)))
        }
        committed => {
            committed?;
            println!("imported {} entries", entries.len());
            Ok(())
        }
    }
}
