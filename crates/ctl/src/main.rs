//! `connlogctl`: migrations, the directory and tokens, and the log itself, from a terminal.

mod agent;
mod directory;
mod feed;
mod logs;
mod remote;
mod retention;
mod shown;
mod tail;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use connlog_runtime::{program, telemetry};
use connlog_store::{Store, StoreConfig, schema};

/// Keeps connlog's database: schema, directory, tokens.
#[derive(Debug, Parser)]
#[command(name = "connlogctl", version)]
struct Arguments {
    /// PostgreSQL, as postgresql://… or key=value; not for logs and tail, which ask connlog-query.
    #[arg(long, env = "CODER_PG_CONNECTION_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// A file with the password of the database, read anew for each connection. If neither it nor the URL gives one, the file that
    /// PGPASSFILE names, or ~/.pgpass, does.
    #[arg(long, env = "CONNLOG_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    database_password_file: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Brings the schema to the version that this program knows.
    Migrate {
        /// Makes the roles of the services, too, and gives each its rights.
        #[arg(long)]
        roles: bool,
    },
    /// Keeps organizations, users, workspaces and agents.
    #[command(subcommand)]
    Directory(directory::Command),
    /// Revokes the tokens of agents.
    #[command(subcommand)]
    Agent(agent::Command),
    /// Makes, lists and revokes API tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Shows or sets how long everything is kept at least, whatever a purge is told.
    #[command(subcommand)]
    Retention(retention::Command),
    /// Keeps the consumers of the change feed.
    #[command(subcommand)]
    Feed(feed::Command),
    /// Shows what matches a search: a table on a terminal, NDJSON elsewhere.
    Logs(logs::Logs),
    /// Follows what matches a search, as it happens.
    Tail(tail::Tail),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Arguments = match program::parse() {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let password_file = arguments.database_password_file.as_deref();
    if let Some(url) = &arguments.database_url
        && let Err(code) = program::check_secret(url, connlog_store::check_url(url, password_file))
    {
        return code;
    }
    if let Err(invalid) = telemetry::init() {
        return program::usage_error(&invalid);
    }
    let command = match arguments.command {
        Command::Logs(logs) => return remote::finish(logs.run()),
        Command::Tail(tail) => return remote::finish(tail.run()),
        command => command,
    };
    let Some(database_url) = arguments.database_url else {
        return program::usage_error("--database-url is missing");
    };
    let config = StoreConfig {
        password_file: arguments.database_password_file,
        ..StoreConfig::new(database_url, "connlogctl", 2)
    };
    match run(&config, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => program::failure(&error),
    }
}

async fn run(config: &StoreConfig, command: Command) -> anyhow::Result<()> {
    let store = Store::new(config)?;
    if let Command::Migrate { roles } = command {
        let applied = schema::migrate(&store).await?;
        if roles {
            connlog_store::roles::set_up(&store).await?;
        }
        schema::check(&store).await?;
        println!("applied {} migrations; the schema is at version {}", applied.len(), schema::known_version());
        return Ok(());
    }
    schema::check(&store).await?;
    match command {
        Command::Directory(command) => directory::run(command, &store).await,
        Command::Agent(command) => agent::run(command, &store).await,
        Command::Token(command) => token::run(command, &store).await,
        Command::Retention(command) => retention::run(&command, &store).await,
        Command::Feed(command) => feed::run(&command, &store).await,
        Command::Migrate { .. } | Command::Logs(_) | Command::Tail(_) => Ok(()),
    }
}
