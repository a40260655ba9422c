//! `connlogctl tail`: changes as they happen, through whatever happens to the line.

use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::logs::Format;
use crate::remote::{Remote, Session};
use crate::shown;

/// Pause before the service is asked again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The search, such as 'type:ssh'; everything if not given.
    #[arg(default_value = "", hide_default_value = true)]
    query: String,
    /// How changes are shown: lines on a terminal and NDJSON elsewhere, if not given.
    #[arg(long, value_parser = clap::builder::EnumValueParser::<Format>::new())]
    format: Option<Format>,
    /// Begins after this position, of an export, say; now, if not given.
    #[arg(long, value_name = "POSITION")]
    since: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// How a stream ended.
enum Ended {
    /// The line broke, or the service stopped: it is asked again.
    Broken,
}

impl Tail {
    pub(crate) fn run(self) -> Result<()> {
        anyhow::ensure!(
            !matches!(self.format, Some(Format::Csv | Format::Ocsf)),
            "a tail is shown as --format table or ndjson"
        );
        let session = self.remote.session()?;
        let as_lines = self.format.map_or_else(|| std::io::stdout().is_terminal(), |format| format == Format::Table);
        let mut position = self.since;
        let mut begun = false;
        loop {
            match follow(&session, &self.query, &mut position, as_lines) {
                Ok(Ended::Broken) => begun = true,
                // What is refused at first is refused for good; later the service may be restarting.
                Err(error) if !begun || error.downcast_ref::<std::io::Error>().is_some() => return Err(error),
                Err(error) => eprintln!("{error:#}; trying again"),
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn follow(session: &Session, query: &str, position: &mut Option<String>, as_lines: bool) -> Result<Ended> {
    let mut parameters = vec![("q", query)];
    let since = position.clone();
    parameters.extend(since.as_deref().map(|since| ("since", since)));
    let mut lines = BufReader::new(session.get("/tail", &parameters)?.into_reader());
    let mut event = String::new();
    loop {
        let begin = event.len();
        // An event ends with an empty line.
        match lines.read_line(&mut event) {
            Ok(0) | Err(_) => return Ok(Ended::Broken),
            Ok(_) if event[begin..] == *"\n" => {
                tell(&event, position, as_lines)?;
                event.clear();
            }
            Ok(_) => {}
        }
    }
}

/// Shows an event, and notes its place.
fn tell(event: &str, position: &mut Option<String>, as_lines: bool) -> Result<()> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let kind = field("event").unwrap_or_default();
    let data: Value = field("data").and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
    match kind {
        "connect" | "disconnect" | "inferred" | "web" if as_lines => {
            writeln!(std::io::stdout(), "{}", shown::line(kind, &data))?;
        }
        "connect" | "disconnect" | "inferred" | "web" => writeln!(std::io::stdout(), "{data}")?,
        "lag" => eprintln!("{} s behind", data["behind_seconds"]),
        "end" => eprintln!("the tail ended: {}", data["reason"].as_str().unwrap_or_default()),
        _ => {}
    }
    if let Some(id) = field("id") {
        *position = Some(id.to_owned());
    }
    Ok(())
}
