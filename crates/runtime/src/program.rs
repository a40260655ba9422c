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
    try_parse().map_err(|error| match error.kind() {
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

/// The same, with what went wrong as clap tells it.
pub fn try_parse<C: Parser>() -> Result<C, clap::Error> {
    let matches = tidy_variables(C::command()).try_get_matches()?;
    C::from_arg_matches(&matches)
}

/// Clap takes an empty variable for a value, and the newline at the end of a mounted file for a part of it. Here the one is no
/// value, and the other is cut off.
fn tidy_variables(command: clap::Command) -> clap::Command {
    command.mut_subcommands(tidy_variables).mut_args(|argument| {
        let value = argument.get_env().and_then(std::env::var_os).and_then(|value| value.into_string().ok());
        match value.as_deref().map(|value| (value, value.trim())) {
            Some((_, "")) => argument.env(None::<&str>),
            Some((value, trimmed)) if value != trimmed => {
                // Once for each variable, at the start of the program.
                let trimmed: &'static str = Box::leak(trimmed.to_owned().into_boxed_str());
                argument.env(None::<&str>).required(false).default_value(trimmed).hide_default_value(true)
            }
            _ => argument,
        }
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

/// Ends the program if the check of a URL failed; that is not left to clap, whose messages repeat the value. Warns if the URL has a
/// password and is on the command line, where other users of the machine can read it.
pub fn check_secret(url: &str, checked: Result<bool, String>) -> Result<(), ExitCode> {
    let has_password = checked.map_err(|invalid| usage_error(&invalid))?;
    if has_password && std::env::args_os().any(|argument| argument.to_string_lossy().contains(url)) {
        eprintln!(
            "warning: the password of the database is on the command line, where others can read it: use --database-password-file"
        );
    }
    Ok(())
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
