//! What dashboards, alerts and the operators' page speak of is what the services export.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::services::Services;

/// Where the files are, from the top of the repository.
const DASHBOARD: &str = "deploy/observability/grafana-dashboard.json";
const ALERTS: &str = "deploy/observability/alerts.yaml";
const OPERATIONS: &str = "deploy/operations.md";

/// What the services know of the purge they learn within seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Compares them.
pub(crate) async fn check(services: &Services) -> Result<()> {
    let began = Instant::now();
    loop {
        match compare(services).await {
            Err(_) if began.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_secs(1)).await,
            outcome => return outcome,
        }
    }
}

async fn compare(services: &Services) -> Result<()> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |file: &str| fs::read_to_string(top.join(file)).with_context(|| format!("cannot read {file}"));
    let mut expressions = Vec::new();
    collect(&serde_json::from_str(&read(DASHBOARD)?)?, &mut expressions);
    let alerts = read(ALERTS)?;
    expressions.extend(alerts.lines().filter_map(|line| Some(line.trim().strip_prefix("expr: ")?.to_owned())));
    let mut exported = BTreeSet::new();
    for address in [services.ingest_admin, services.query_admin] {
        let text = reqwest::get(format!("http://{address}/metrics")).await?.error_for_status()?.text().await?;
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        exported.extend(names.map(str::to_owned));
    }
    let mut named = BTreeSet::new();
    for expression in &expressions {
        for name in names(expression) {
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let name = of_histogram.filter(|base| exported.contains(*base)).unwrap_or(name);
            ensure!(exported.contains(name), "{name} is in {expression:?}, and no service exports it");
            named.insert(name.to_owned());
        }
    }
    ensure!(!named.is_empty(), "the dashboard and the alerts name no metric");
    let documented: BTreeSet<String> = names(&read(OPERATIONS)?).map(str::to_owned).collect();
    let missing: Vec<&String> = exported.difference(&documented).collect();
    ensure!(missing.is_empty(), "{OPERATIONS} does not know {missing:?}");
    println!("ok: {} metrics, all documented, {} of them in dashboard and alerts", exported.len(), named.len());
    Ok(())
}

/// Every `expr` of a dashboard.
fn collect(value: &Value, expressions: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" => expressions.push(text.clone()),
                    value => collect(value, expressions),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, expressions)),
        _ => {}
    }
}

/// The names of metrics of connlog's in a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("connlog_") || word.starts_with("coderd_"))
}
