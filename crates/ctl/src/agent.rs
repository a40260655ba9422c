//! `connlogctl agent`: the credentials of agents.

use anyhow::bail;
use chrono::Utc;
use clap::{Args, Subcommand};
use connlog_model::clock::{rfc3339, truncate_to_micros};
use connlog_store::Store;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Revokes all tokens of an agent, or of all agents of a workspace, for good. The agent needs a new token: importing a directory
    /// that still has a revoked one does not bring it back.
    Revoke(Of),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Of {
    /// The agent's id.
    #[arg(value_name = "AGENT")]
    agent: Option<Uuid>,
    /// The workspace's id: all of its agents.
    #[arg(long, value_name = "WORKSPACE")]
    workspace: Option<Uuid>,
}

pub(crate) async fn run(command: Command, store: &Store) -> anyhow::Result<()> {
    let Command::Revoke(Of { agent, workspace }) = command;
    let now = truncate_to_micros(Utc::now());
    let tokens = store.revoke_agents(agent, workspace, now).await?;
    if tokens == 0 {
        let what = if agent.is_some() { "the agent has" } else { "the workspace's agents have" };
        bail!("{what} no token that is accepted");
    }
    println!("revoked {tokens} tokens at {}; calls that go on end within 10 seconds", rfc3339(now));
    Ok(())
}
