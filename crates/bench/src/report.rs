//! What was measured, by name: a table for people and JSON for programs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Map, Value, json};

/// A figure, what it is compared with in the same run, and how often both were measured.
#[derive(Debug, Clone)]
pub struct Figure {
    key: &'static str,
    value: f64,
    /// None if there is nothing that it could be compared with.
    baseline: Option<f64>,
    unit: &'static str,
    rounds: u32,
    /// The least and the largest ratio of a round, if there is one for each.
    spread: Option<(f64, f64)>,
}

/// All figures of a run, kept in a file from the first one on: what comes later may fail.
#[derive(Debug)]
pub struct Report {
    file: PathBuf,
    figures: Vec<Figure>,
}

impl Report {
    /// An empty one.
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), figures: Vec::new() }
    }

    /// Adds a figure of which there is one.
    pub fn add(&mut self, key: &'static str, value: f64, baseline: f64, unit: &'static str, rounds: u32) {
        self.push(Figure { key, value, baseline: Some(baseline), unit, rounds, spread: None });
    }

    /// Adds a figure that is compared with nothing.
    pub fn state(&mut self, key: &'static str, value: f64, unit: &'static str) {
        self.push(Figure { key, value, baseline: None, unit, rounds: 1, spread: None });
    }

    /// Adds the medians of pairs that were measured in turn.
    pub fn add_rounds(&mut self, key: &'static str, pairs: &[(f64, f64)], unit: &'static str) {
        let value = crate::median(pairs.iter().map(|(value, _)| *value).collect());
        let baseline = crate::median(pairs.iter().map(|(_, baseline)| *baseline).collect());
        let ratios = || pairs.iter().map(|(value, baseline)| value / baseline);
        let spread = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
        let rounds = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
        self.push(Figure { key, value, baseline: Some(baseline), unit, rounds, spread: Some(spread) });
    }

    /// Prints the table.
    pub fn print(&self) {
        println!(
            "\n{:<28} {:>12} {:>12} {:>8}  {:<15} {:<14} rounds",
            "figure", "connlog", "baseline", "ratio", "spread", "unit"
        );
        for figure in &self.figures {
            let spread = figure.spread.map_or_else(String::new, |(least, most)| format!("{least:.2} to {most:.2}"));
            let baseline = figure.baseline.map_or_else(String::new, |baseline| format!("{baseline:.2}"));
            let ratio = figure.baseline.map_or_else(String::new, |baseline| format!("{:.3}", figure.value / baseline));
            let Figure { key, value, unit, rounds, .. } = figure;
            println!("{key:<28} {value:>12.2} {baseline:>12} {ratio:>8}  {spread:<15} {unit:<14} {rounds}");
        }
    }

    fn push(&mut self, figure: Figure) {
        self.figures.push(figure);
        if let Err(error) = self.write() {
            eprintln!("cannot write {}: {error}", self.file.display());
        }
    }

    fn write(&self) -> Result<()> {
        let figures = self.figures.iter().map(|figure| {
            let Figure { key, value, baseline, unit, rounds, .. } = figure;
            let ratio = baseline.map(|baseline| value / baseline);
            let body = json!({ "value": value, "baseline": baseline, "ratio": ratio, "unit": unit, "rounds": rounds });
            ((*key).to_owned(), body)
        });
        let text = serde_json::to_string_pretty(&Value::Object(figures.collect::<Map<_, _>>()))?;
        Ok(std::fs::write(&self.file, text + "\n")?)
    }
}
