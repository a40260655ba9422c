//! `connlogctl logs`: what matches a search.

use std::io::{BufRead as _, BufReader, BufWriter, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::remote::{Remote, Session};
use crate::shown;

/// Entries of a table, unless more are asked for.
const TABLE_LIMIT: usize = 50;
/// Entries of a page.
const PAGE: usize = 1000;

/// How entries are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON object a line.
    Ndjson,
    /// RFC 4180.
    Csv,
    /// One OCSF event a line.
    Ocsf,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The search, such as 'type:ssh status:ongoing'; everything if not given.
    #[arg(default_value = "", hide_default_value = true)]
    query: String,
    /// How entries are shown: a table on a terminal and NDJSON elsewhere, if not given.
    #[arg(long)]
    format: Option<Format>,
    /// Most entries, newest first; 50 for a table and all otherwise, if not given.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    remote: Remote,
}

impl Logs {
    pub(crate) fn run(self) -> Result<()> {
        let session = self.remote.session()?;
        let elsewhere = if std::io::stdout().is_terminal() { Format::Table } else { Format::Ndjson };
        match (self.format.unwrap_or(elsewhere), self.limit) {
            (Format::Table, limit) => {
                let (entries, count) = list(&session, &self.query, limit.unwrap_or(TABLE_LIMIT))?;
                writeln!(std::io::stdout(), "{}", shown::table(&entries))?;
                if i64::try_from(entries.len()).is_ok_and(|shown| shown < count) {
                    eprintln!("{} of {count} entries; --limit shows more", entries.len());
                }
                Ok(())
            }
            (Format::Ndjson, Some(limit)) => {
                for entry in list(&session, &self.query, limit)?.0 {
                    writeln!(std::io::stdout(), "{entry}")?;
                }
                Ok(())
            }
            (Format::Csv | Format::Ocsf, Some(_)) => bail!("--limit goes with --format table or ndjson"),
            (format, None) => export(&session, &self.query, format),
        }
    }
}

fn list(session: &Session, query: &str, limit: usize) -> Result<(Vec<Value>, i64)> {
    let (mut entries, mut count, mut cursor) = (Vec::new(), 0, None::<String>);
    while entries.len() < limit {
        let wanted = (limit - entries.len()).min(PAGE).to_string();
        let mut parameters = vec![("q", query), ("limit", wanted.as_str())];
        parameters.extend(cursor.as_deref().map(|cursor| ("after", cursor)));
        let mut page: Value = session.get("", &parameters)?.read_json()?;
        count = page["count"].as_i64().context("the answer has no count")?;
        if let Value::Array(found) = page["connection_logs"].take() {
            entries.extend(found);
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    Ok((entries, count))
}

/// Writes an export as it comes, all but the record at its end: that becomes the exit code, and a line for people.
fn export(session: &Session, query: &str, format: Format) -> Result<()> {
    let name = match format {
        Format::Csv => "csv",
        Format::Ocsf => "ocsf",
        Format::Ndjson | Format::Table => "ndjson",
    };
    let body = session.get("/export", &[("q", query), ("format", name)])?;
    let mut lines = BufReader::new(body.into_reader());
    let mut out = BufWriter::new(std::io::stdout().lock());
    // A line is held back until it is known not to be the last.
    let (mut line, mut held) = (Vec::new(), Vec::new());
    while lines.read_until(b'\n', &mut line).context("the export broke off")? > 0 {
        out.write_all(&held)?;
        std::mem::swap(&mut held, &mut line);
        line.clear();
    }
    out.flush()?;
    let end = String::from_utf8_lossy(&held);
    let complete = match format {
        Format::Csv => end.starts_with("export,") && end.contains(",true,"),
        _ => end.contains("\"complete\":true"),
    };
    if !complete {
        bail!("the export is not complete: {}", end.trim());
    }
    Ok(())
}
