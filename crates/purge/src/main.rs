//! The `connlog-purge` program. It exits with 0 only if everything due is gone.

use std::process::ExitCode;

use connlog_purge::{Config, Failure, Outcome, Settings, Summary};
use connlog_runtime::program::{self, EXIT_TEMPORARY};
use connlog_runtime::shutdown::Shutdown;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = match program::parse::<Config>().map(Settings::resolve) {
        Ok(Ok(settings)) => settings,
        Ok(Err(message)) => return program::usage_error(&message),
        Err(code) => return code,
    };
    let config = &settings.config;
    let checked = connlog_store::check_url(&config.database_url, config.database_password_file.as_deref());
    if let Err(code) = program::check_secret(&config.database_url, checked) {
        return code;
    }
    program::run("connlog-purge", purge(settings)).await
}

async fn purge(settings: Settings) -> ExitCode {
    let shutdown = match Shutdown::on_signals() {
        Ok(shutdown) => shutdown,
        Err(error) => return program::failure(&error.into()),
    };
    match connlog_purge::serve(&settings, &shutdown).await {
        Ok(summary) => summary.map_or(ExitCode::SUCCESS, |summary| report(&summary, settings.config.json)),
        Err(error) if matches!(error.downcast_ref(), Some(Failure::Busy)) => {
            eprintln!("error: {error}");
            ExitCode::from(EXIT_TEMPORARY)
        }
        Err(error) => program::failure(&error),
    }
}

fn report(summary: &Summary, json: bool) -> ExitCode {
    if json {
        println!("{}", serde_json::json!(summary));
    } else {
        println!("{summary}");
    }
    let done = matches!(summary.outcome, Outcome::Complete | Outcome::KeptForever | Outcome::DryRun);
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
