//! What was measured, by name: a table for people and JSON for programs.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

/// A figure, what it is compared with in the same run, and how often both were measured.
#[derive(Debug, Clone)]
pub struct Figure {
    key: &'static str,
    value: f64,
    baseline: f64,
    unit: &'static str,
    rounds: u32,
    /// The least and the largest ratio of a round, if there is one for each.
    spread: Option<(f64, f64)>,
}

/// All figures of a run.
#[derive(Debug, Default)]
pub struct Report(Vec<Figure>);

impl Report {
    /// Adds a figure of which there is one.
    pub fn add(&mut self, key: &'static str, value: f64, baseline: f64, unit: &'static str, rounds: u32) {
        self.0.push(Figure { key, value, baseline, unit, rounds, spread: None });
    }

    /// Adds the medians of pairs that were measured in turn.
    pub fn add_rounds(&mut self, key: &'static str, pairs: &[(f64, f64)], unit: &'static str) {
        let value = crate::median(pairs.iter().map(|(value, _)| *value).collect());
        let baseline = crate::median(pairs.iter().map(|(_, baseline)| *baseline).collect());
        let ratios = || pairs.iter().map(|(value, baseline)| value / baseline);
        let spread = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
        let rounds = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
        self.0.push(Figure { key, value, baseline, unit, rounds, spread: Some(spread) });
    }

    /// Prints the table.
    pub fn print(&self) {
        println!(
            "\n{:<28} {:>12} {:>12} {:>8}  {:<15} {:<9} rounds",
            "figure", "connlog", "baseline", "ratio", "spread", "unit"
        );
        for figure in &self.0 {
            let spread = figure.spread.map_or_else(String::new, |(least, most)| format!("{least:.2} to {most:.2}"));
            println!(
                "{:<28} {:>12.2} {:>12.2} {:>8.3}  {:<15} {:<9} {}",
                figure.key,
                figure.value,
                figure.baseline,
                figure.value / figure.baseline,
                spread,
                figure.unit,
                figure.rounds
            );
        }
    }

    /// Writes the JSON.
    pub fn write(&self, file: &Path) -> Result<()> {
        let figures = self.0.iter().map(|figure| {
            let Figure { key, value, baseline, unit, rounds, .. } = figure;
            let body = json!({ "value": value, "baseline": baseline, "ratio": value / baseline, "unit": unit, "rounds": rounds });
            ((*key).to_owned(), body)
        });
        let text = serde_json::to_string_pretty(&Value::Object(figures.collect::<Map<_, _>>()))?;
        Ok(std::fs::write(file, text + "\n")?)
    }
}
