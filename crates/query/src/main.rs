//! The `connlog-query` program.

use std::process::ExitCode;

use anyhow::Context as _;
use connlog_query::Config;
use connlog_runtime::program;
use connlog_runtime::shutdown::Shutdown;
use tokio::net::TcpListener;

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
    if let Some(url) = &config.database_read_url {
        let for_reads = |error: String| error.replace("--database-url", "--database-read-url");
        if let Err(code) = program::check_secret(url, connlog_store::check_url(url, None).map_err(for_reads)) {
            return code;
        }
    }
    program::run("connlog-query", async { program::ended(&start(config).await) }).await
}

async fn start(config: Config) -> anyhow::Result<bool> {
    let bind = async |address| TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"));
    let listener = bind(config.listen).await?;
    let admin = bind(config.admin_listen).await?;
    connlog_query::run(config, listener, admin, Shutdown::on_signals()?).await
}
