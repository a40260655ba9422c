//! `connlogctl`: migrations, the directory and tokens, from a terminal.

mod directory;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use connlog_runtime::{program, telemetry};
use connlog_store::{Store, StoreConfig, schema};

/// Keeps connlog's database: schema, directory, tokens.
#[derive(Debug, Parser)]
#[command(name = "connlogctl", version)]
struct Arguments {
    /// PostgreSQL, as postgresql://… or key=value.
    #[arg(long, env = "CODER_PG_CONNECTION_URL", hide_env_values = true, value_name = "URL")]
    database_url: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Brings the schema to the version that this program knows.
    Migrate,
    /// Keeps organizations, users, workspaces and agents.
    #[command(subcommand)]
    Directory(directory::Command),
    /// Makes, lists and revokes API tokens.
    #[command(subcommand)]
    Token(token::Command),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Arguments = match program::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    // Not by clap, whose message would repeat the value: it may hold a password.
    if let Err(invalid) = connlog_store::parse_url(&arguments.database_url) {
        return program::usage_error(&format!("--database-url {invalid}"));
    }
    telemetry::init();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => program::failure(&error),
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let store = Store::new(&StoreConfig::new(&arguments.database_url, "connlogctl", 2))?;
    if let Command::Migrate = arguments.command {
        let applied = schema::migrate(&store).await?;
        schema::check(&store).await?;
        println!("applied {} migrations; the schema is at version {}", applied.len(), schema::known_version());
        return Ok(());
    }
    schema::check(&store).await?;
    match arguments.command {
        Command::Migrate => Ok(()),
        Command::Directory(command) => directory::run(command, &store).await,
        Command::Token(command) => token::run(command, &store).await,
    }
}
