//! `connlogctl retention`: the minimum below which no purge goes.

use chrono::TimeDelta;
use clap::Subcommand;
use connlog_model::retention::parse_duration;
use connlog_store::Store;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints the minimum retention, or sets it: nothing younger is ever removed. Only the owner of the tables may.
    Minimum {
        /// Such as 90d; 0 is none.
        #[arg(value_name = "DURATION", value_parser = parse_minimum)]
        duration: Option<TimeDelta>,
    },
}

fn parse_minimum(text: &str) -> Result<TimeDelta, String> {
    let minimum = parse_duration(text).map_err(|error| error.to_string())?;
    if minimum >= TimeDelta::zero() { Ok(minimum) } else { Err("must not be negative".to_owned()) }
}

pub(crate) async fn run(command: &Command, store: &Store) -> anyhow::Result<()> {
    let Command::Minimum { duration } = command;
    if let Some(minimum) = duration {
        store.set_minimum_retention(*minimum).await?;
    }
    println!("{}", shown(store.minimum_retention().await?));
    Ok(())
}

/// A duration in the grammar in which it is given, by the largest unit that says it in whole.
fn shown(duration: TimeDelta) -> String {
    let seconds = duration.num_seconds();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60)];
    match units.into_iter().find(|(_, length)| seconds % length == 0) {
        _ if seconds == 0 => "0".to_owned(),
        Some((unit, length)) => format!("{}{unit}", seconds / length),
        None => format!("{seconds}s"),
    }
}
