//! A log collector, with the configuration that is shipped, gets out of both service logs what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use connlog_testkit::postgres::target_dir;
use connlog_testkit::process::Process;
use serde_json::Value;

use super::services::Services;
use crate::install::Collector;

const CONFIGURATION: &str = "deploy/collectors/syslog-ng.conf";
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Fields by name, of each line by request, entry and status.
type Lines = BTreeMap<[String; 3], BTreeMap<String, String>>;

/// Runs it and compares.
pub(crate) fn check(services: &Services) -> Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let folder = target_dir().join("demo/collector");
    let _absent_in_the_first_run = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let parsed = folder.join("parsed.json");
    let (human, json) = (&services.service_log, services.service_log.with_extension("json"));
    let lines = |file: &Path| Ok::<_, anyhow::Error>(fs::read_to_string(file)?.lines().count());
    let expected = lines(human)? + lines(&json)?;
    let collector = Collector::at(&target_dir());
    collector.install()?;
    let mut command = collector.command()?;
    command.args(["--foreground", "--no-caps", "--cfgfile"]).arg(top.join(CONFIGURATION));
    for (flag, file) in [("--persist-file", "persist"), ("--control", "control"), ("--pidfile", "pid")] {
        command.arg(flag).arg(folder.join(file));
    }
    command.env("CONNLOG_JSON", &json).env("CONNLOG_HUMAN", human).env("CONNLOG_PARSED", &parsed);
    let mut collector = Process::spawn("syslog-ng", &command, "KILL")?;
    let began = Instant::now();
    while lines(&parsed).unwrap_or(0) < expected {
        ensure!(collector.exit_status().is_none(), "syslog-ng does not take {CONFIGURATION}");
        ensure!(began.elapsed() < PATIENCE, "{:?} of {expected} lines were collected", lines(&parsed));
        std::thread::sleep(Duration::from_millis(100));
    }
    let (mut of_json, mut of_human) = (Lines::new(), Lines::new());
    for line in fs::read_to_string(&parsed)?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let of_format = if line["format"] == "json" { &mut of_json } else { &mut of_human };
        let fields = line["connlog"]["fields"].as_object().with_context(|| format!("no fields in {line}"))?;
        // What is absent is null in one format and <nil> in the other.
        let text = |value: &Value| value.as_str().unwrap_or_default().replace("<nil>", "");
        let mut fields: BTreeMap<String, String> =
            fields.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        fields.insert("msg".to_owned(), text(&line["connlog"]["msg"]));
        let key = ["request_id", "ID", "ConnectionStatus"].map(|name| fields.get(name).cloned().unwrap_or_default());
        of_format.insert(key, fields);
    }
    ensure!(of_json.len() * 2 == expected, "{} different lines of {expected} in both formats", of_json.len());
    for (key, fields) in &of_json {
        ensure!(of_human.get(key) == Some(fields), "{fields:?} is {:?} in the other format", of_human.get(key));
    }
    println!("ok: a collector parsed {} lines alike from both service logs", of_json.len());
    Ok(())
}
