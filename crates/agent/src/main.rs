//! The `connlog-agent` program: the sidecar, and what hooks call.
//!
//! Exit codes of `report`: 0 when the event is durable, in the spool or in the drop directory; 64 for a bad value; 65 when
//! the event is not acceptable; 74 when it cannot be stored anywhere.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use connlog_agent::Config;
use connlog_agent::client::{TlsFiles, TokenSource, check_address};
use connlog_agent::sidecar::{self, Accepted, HandOverError};
use connlog_proto::v1;
use connlog_runtime::program;
use connlog_runtime::traces::Traces;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

const EXIT_USAGE: u8 = 64;
const EXIT_INVALID: u8 = 65;
const EXIT_STORAGE: u8 = 74;

/// Reports the connections of a workspace to connlog.
#[derive(Debug, Parser)]
#[command(name = "connlog-agent", version)]
struct Arguments {
    /// The folder of the spool, the socket and the drop directory.
    #[arg(
        long,
        env = "CONNLOG_AGENT_SPOOL",
        default_value = "/var/lib/connlog-agent",
        global = true,
        value_name = "FOLDER"
    )]
    spool: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the sidecar: streams the spool to a server until SIGTERM.
    Run(Run),
    /// Reports one event, for hooks.
    #[command(subcommand)]
    Report(Report),
    /// Shows what is pending, what is lost, and the last error.
    Status,
}

#[derive(Debug, Args)]
struct Run {
    /// A server of connlog-ingest, as https://host:port, or http://host:port without TLS; may be repeated.
    #[arg(long, env = "CONNLOG_AGENT_SERVERS", value_delimiter = ',', required = true, value_name = "URL")]
    server: Vec<String>,
    /// The file that holds the agent's token; it is read again for each stream.
    #[arg(long, env = "CONNLOG_AGENT_TOKEN_FILE", value_name = "FILE")]
    token_file: PathBuf,
    /// Authorities of the server's certificate, as PEM; without it, those of the system. Read again for each stream.
    #[arg(long, env = "CONNLOG_AGENT_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Certificate to show to a server that asks for one, as PEM.
    #[arg(long, env = "CONNLOG_AGENT_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Private key of that certificate, as PEM.
    #[arg(long, env = "CONNLOG_AGENT_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Bound of the spool, in bytes.
    #[arg(long, env = "CONNLOG_AGENT_MAX_SPOOL_BYTES", default_value_t = Config::DEFAULT_SPOOL_BYTES, value_name = "N")]
    max_spool_bytes: u64,
}

#[derive(Debug, Subcommand)]
enum Report {
    /// A connection began. Prints its id.
    Connect {
        /// The connection; a new id if not given.
        #[arg(long)]
        id: Option<Uuid>,
        /// The client app: ssh, vscode, cursor, goland, `reconnecting_pty`, …
        #[arg(long)]
        app: String,
        /// Address of the client; one that cannot be read is unknown.
        #[arg(long)]
        ip: Option<String>,
    },
    /// A connection ended.
    Disconnect {
        /// The connection, as its connect printed it.
        #[arg(long)]
        id: Uuid,
        /// The client app, as when it began.
        #[arg(long)]
        app: String,
        /// Exit status; unknown if it is not given.
        #[arg(long, allow_hyphen_values = true)]
        code: Option<i32>,
        /// Why, in words.
        #[arg(long)]
        reason: Option<String>,
    },
}

fn main() -> ExitCode {
    let arguments = match program::try_parse::<Arguments>() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _nowhere_to_complain = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    match arguments.command {
        Command::Run(run) => run_sidecar(run, arguments.spool),
        Command::Report(report) => hand_over(&report, &arguments.spool),
        Command::Status => match sidecar::status(&arguments.spool) {
            Ok(status) => {
                print!("{status}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&format!("the sidecar does not answer: {error}"), 1),
        },
    }
}

fn run_sidecar(run: Run, spool: PathBuf) -> ExitCode {
    let filter = std::env::var("CONNLOG_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = Config {
        servers: run.server,
        token: TokenSource::File(run.token_file),
        tls: TlsFiles { ca: run.ca_file, identity: run.client_cert.zip(run.client_key) },
        spool,
        max_spool_bytes: run.max_spool_bytes,
        agent_version: concat!("connlog-agent ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    for server in &config.servers {
        if let Err(error) = check_address(server) {
            return fail(&format!("--server {error}"), EXIT_USAGE);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
            let stop = async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            };
            let traces = Traces::start("connlog-agent")?;
            let outcome = sidecar::serve(config, stop).await.map_err(|error| error.to_string());
            traces.finish().await;
            outcome
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn hand_over(report: &Report, spool: &std::path::Path) -> ExitCode {
    let (id, event) = event(report);
    match sidecar::hand_over(spool, &event) {
        Ok(accepted) => {
            if matches!(report, Report::Connect { .. }) {
                // The event is durable; a caller that closed its end does not need the id.
                let _closed = writeln!(std::io::stdout(), "{id}");
            }
            if accepted == Accepted::Dropped {
                eprintln!("the sidecar is not there; the event waits for it in the drop directory");
            }
            ExitCode::SUCCESS
        }
        Err(error @ HandOverError::Invalid(_)) => fail(&error.to_string(), EXIT_INVALID),
        Err(error @ HandOverError::Storage(_)) => fail(&error.to_string(), EXIT_STORAGE),
    }
}

fn event(report: &Report) -> (Uuid, v1::Connection) {
    let (id, app, action) = match report {
        Report::Connect { id, app, .. } => (id.unwrap_or_else(Uuid::new_v4), app, v1::Action::Connect),
        Report::Disconnect { id, app, .. } => (*id, app, v1::Action::Disconnect),
    };
    let mut event = v1::Connection {
        id: id.as_bytes().to_vec(),
        action: action.into(),
        timestamp: Some(SystemTime::now().into()),
        app_name: app.clone(),
        ..v1::Connection::default()
    };
    match report {
        Report::Connect { ip, .. } => event.ip = ip.clone().unwrap_or_default(),
        Report::Disconnect { code, reason, .. } => (event.status_code, event.reason) = (*code, reason.clone()),
    }
    (id, event)
}

fn fail(message: &str, code: u8) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(code)
}
