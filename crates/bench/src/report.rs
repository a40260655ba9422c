//! What was measured: a table for people, JSON for programs, and the verdict against the floors.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::figures::{Bound, Definition, FIGURES, definition};

/// A measured figure: the medians of its rounds.
#[derive(Debug, Clone)]
struct Measured {
    definition: &'static Definition,
    value: f64,
    /// None if there is nothing to compare it with.
    baseline: Option<f64>,
    rounds: usize,
    /// The least and the largest ratio of a round.
    spread: Option<(f64, f64)>,
    /// The search that it is about, if another run may measure another one.
    of: Option<String>,
}

/// All figures of a run, written to a file after each one: a later part may fail.
#[derive(Debug)]
pub struct Report {
    file: PathBuf,
    measured: Vec<Measured>,
}

impl Report {
    /// Makes an empty report.
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), measured: Vec::new() }
    }

    /// Adds a figure of one round.
    pub fn add(&mut self, key: &str, value: f64, baseline: f64) {
        let (definition, baseline) = (definition(key), Some(baseline));
        self.push(Measured { definition, value, baseline, rounds: 1, spread: None, of: None });
    }

    /// Adds a figure without a baseline.
    pub fn state(&mut self, key: &str, value: f64) {
        self.push(Measured { definition: definition(key), value, baseline: None, rounds: 1, spread: None, of: None });
    }

    /// Adds the medians of pairs, value and baseline, that were measured in turn.
    pub fn add_rounds(&mut self, key: &str, pairs: &[(f64, f64)]) {
        let value = crate::median(pairs.iter().map(|(value, _)| *value).collect());
        let baseline = crate::median(pairs.iter().map(|(_, baseline)| *baseline).collect());
        let ratios = || pairs.iter().map(|(value, baseline)| value / baseline);
        let spread = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
        let (definition, baseline) = (definition(key), Some(baseline));
        self.push(Measured { definition, value, baseline, rounds: pairs.len(), spread: Some(spread), of: None });
    }

    /// Names the search that the figure added last is about.
    pub fn is_of(&mut self, what: &str) {
        if let Some(last) = self.measured.last_mut() {
            last.of = Some(what.to_owned());
        }
        self.save();
    }

    /// Prints all figures in the order of their table; one that was not measured says why.
    pub fn print(&self) {
        println!(
            "\n{:<27} {:>11} {:>11} {:>7}  {:<14} {:<17} {:<22} rounds",
            "figure", "connlog", "baseline", "ratio", "spread", "unit", "wanted"
        );
        for definition in &FIGURES {
            let key = definition.key;
            let measured = self.measured.iter().find(|measured| measured.definition.key == key);
            let wanted = definition.bound.map_or_else(String::new, |bound| format!("; wanted: {bound}"));
            let absent = || format!("{key:<27} {}{wanted}", "not measured in this run");
            println!("{}", measured.map_or_else(absent, Measured::line));
        }
    }

    /// The figures that miss a bound that is no time.
    pub fn missed(&self) -> Vec<&'static str> {
        let missed = self.measured.iter().filter(|measured| measured.is_met() == Some(false));
        let missed =
            missed.filter(|measured| measured.definition.bound.is_some_and(super::figures::Bound::fails_the_run));
        missed.map(|measured| measured.definition.key).collect()
    }

    fn push(&mut self, measured: Measured) {
        self.measured.push(measured);
        self.save();
    }

    fn save(&self) {
        if let Err(error) = self.write() {
            eprintln!("cannot write {}: {error}", self.file.display());
        }
    }

    fn write(&self) -> Result<()> {
        let figures = FIGURES.iter().map(|definition| {
            let measured = self.measured.iter().find(|measured| measured.definition.key == definition.key);
            let wanted = definition.bound.map(|bound| bound.to_string());
            let Some(measured) = measured else {
                return (definition.key.to_owned(), json!({ "absent": "not measured in this run", "wanted": wanted }));
            };
            let body = json!({
                "of": measured.of,
                "value": measured.value,
                "baseline": measured.baseline,
                "ratio": measured.ratio(),
                "spread": measured.spread.map(|(least, most)| [least, most]),
                "unit": measured.definition.unit,
                "rounds": measured.rounds,
                "wanted": wanted,
                "met": measured.is_met(),
            });
            (definition.key.to_owned(), body)
        });
        let mut all: Map<_, _> = figures.collect();
        all.insert("printed_at".to_owned(), json!(chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string()));
        let text = serde_json::to_string_pretty(&Value::Object(all))?;
        Ok(std::fs::write(&self.file, text + "\n")?)
    }
}

impl Measured {
    fn ratio(&self) -> Option<f64> {
        self.baseline.map(|baseline| self.value / baseline)
    }

    fn is_met(&self) -> Option<bool> {
        let bound = self.definition.bound?;
        Some(match bound {
            Bound::RatioAtLeast(least) => self.ratio()? >= least,
            Bound::RatioAtMost(most) => self.ratio()? <= most,
            Bound::AtLeast(least) => self.value >= least,
            Bound::AtMost(most) | Bound::TargetMillis(most) => self.value <= most,
        })
    }

    fn line(&self) -> String {
        let Self { definition, value, baseline, rounds, spread, of } = self;
        let spread = spread.map_or_else(String::new, |(least, most)| format!("{} to {}", digits(least), digits(most)));
        let ratio = self.ratio().map_or_else(String::new, digits);
        let baseline = baseline.map_or_else(String::new, |baseline| format!("{baseline:.2}"));
        let wanted = definition.bound.map_or_else(String::new, |bound| {
            let verdict = if self.is_met() == Some(true) { "met" } else { "MISSED" };
            format!("{bound}: {verdict}")
        });
        let Definition { key, unit, .. } = definition;
        format!(
            "{key:<27} {value:>11.2} {baseline:>11} {ratio:>7}  {spread:<14} {unit:<17} {wanted:<22} {rounds}{}",
            of.as_ref().map_or_else(String::new, |of| format!("  ({of})"))
        )
    }
}

/// A ratio with three significant digits.
fn digits(ratio: f64) -> String {
    let decimals = [100.0, 10.0, 1.0, 0.1, 0.01, 0.001].iter().position(|bound| ratio >= *bound).unwrap_or(6);
    format!("{ratio:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_ratio_fails_the_run_and_a_missed_time_does_not() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut report = Report::new(&folder.path().join("report.json"));
        report.add("ingest.peer", 100.0, 100.0);
        report.add("query.worst_filter", 9_000.0, 1.0);
        assert_eq!(report.missed(), ["ingest.peer"]);
        report.add_rounds("export.ndjson", &[(70.0, 100.0), (90.0, 100.0), (80.0, 100.0)]);
        assert_eq!(report.missed(), ["ingest.peer"]);
        let written = std::fs::read_to_string(folder.path().join("report.json")).expect("the report is written");
        let written: Value = serde_json::from_str(&written).expect("the report is JSON");
        assert_eq!(written["export.ndjson"]["ratio"], 0.8);
        assert_eq!(written["export.ndjson"]["met"], true);
        assert_eq!(written["query.worst_filter"]["met"], false);
    }
}
