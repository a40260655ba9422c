//! The `connlog-ingest` program.

use std::process::ExitCode;

use anyhow::Context as _;
use connlog_ingest::Config;
use connlog_runtime::program;
use connlog_runtime::shutdown::Shutdown;
use tokio::net::TcpListener;

/// Events are made by one thread and released by another, which costs a quarter of the time with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let config: Config = match program::parse() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let checked = connlog_store::check_url(&config.database_url, config.database_password_file.as_deref());
    if let Err(code) = program::check_secret(&config.database_url, checked) {
        return code;
    }
    program::run("connlog-ingest", async { program::ended(&start(config).await) }).await
}

async fn start(config: Config) -> anyhow::Result<bool> {
    let bind = async |address| TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"));
    let listener = bind(config.listen).await?;
    let admin = bind(config.admin_listen).await?;
    connlog_ingest::run(config, listener, admin, Shutdown::on_signals()?).await
}
