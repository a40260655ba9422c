//! The start and the end of a program: arguments in, exit code out.
//!
//! Exit codes follow sysexits(3): 64 for a bad value, 75 for a temporary refusal, 1 for any other failure.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::telemetry;
use crate::traces::Traces;

/// A value on the command line or in the environment is wrong.
pub const EXIT_USAGE: u8 = 64;
/// Something else has to end first; trying again later may succeed.
pub const EXIT_TEMPORARY: u8 = 75;

/// Reads the configuration from flags and environment. On a bad value, one line that names it, and exit code 64. An
/// empty environment variable is unset.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    let command = unset_empty_variables(C::command());
    let parsed = command.try_get_matches().and_then(|matches| C::from_arg_matches(&matches));
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print!("{error}");
            ExitCode::SUCCESS
        }
        _ => {
            let text = error.to_string();
            let message: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            usage_error(message.join(" ").trim_start_matches("error: "))
        }
    })
}

/// Clap takes an empty variable for a value; here it is no value.
fn unset_empty_variables(command: clap::Command) -> clap::Command {
    command.mut_args(|argument| match argument.get_env() {
        Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => argument.env(None::<&str>),
        _ => argument,
    })
}

/// Parses a number above zero, for a setting; the error is a text for its user.
pub fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "must be a positive number".to_owned())
}

/// Prints one line about a bad value and returns exit code 64.
pub fn usage_error(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(EXIT_USAGE)
}

/// Runs a program with diagnostics, and with traces as `name` if they are configured.
pub async fn run(name: &'static str, program: impl Future<Output = ExitCode>) -> ExitCode {
    if let Err(invalid) = telemetry::init() {
        return usage_error(&invalid);
    }
    let traces = match Traces::start(name) {
        Ok(traces) => traces,
        Err(invalid) => return usage_error(&invalid),
    };
    let code = program.await;
    traces.finish().await;
    code
}

/// The exit code of a service: it ended well, or not well, or failed.
pub fn ended(outcome: &anyhow::Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failure(error),
    }
}

/// Prints why a program failed, with its causes, and returns exit code 1.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
