//! All that sends: 20 agents and a proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::agent::{Agent, Style};
use super::directory::Directory;
use super::ledger::Ledger;
use super::proxy::Proxy;
use super::services::Services;

/// Simulated agents.
const AGENTS: usize = 20;
/// Workspaces lie this far apart, so that agents are spread over organizations and owners.
const STRIDE: usize = 3;
/// How long the last acknowledgements may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Running traffic.
pub(crate) struct Traffic {
    tasks: JoinSet<Result<()>>,
    quiet: Arc<AtomicBool>,
    ledger: Ledger,
}

impl Traffic {
    /// Starts everybody.
    pub(crate) fn start(directory: &Directory, services: &Services, ledger: &Ledger) -> Self {
        let quiet = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..AGENTS {
            let workspace = (number * STRIDE + number / 5) % directory.workspaces.len();
            let agent = Agent {
                number,
                workspace,
                token: directory.workspaces[workspace].agent_token.clone(),
                style: match number {
                    0..16 => Style::Stream,
                    16..18 => Style::Unary,
                    _ => Style::Coder,
                },
                ledger: ledger.clone(),
                quiet: Arc::clone(&quiet),
            };
            tasks.spawn(agent.run(services.ingest));
        }
        let proxy = Proxy {
            directory: directory.clone(),
            token: services.reporter_token.clone(),
            ledger: ledger.clone(),
            quiet: Arc::clone(&quiet),
        };
        tasks.spawn(proxy.run(services.ingest));
        Self { tasks, quiet, ledger: ledger.clone() }
    }

    /// Stops making events and waits until all are acknowledged. Agents stay connected, with what they have open.
    pub(crate) async fn quiesce(&self) -> Result<()> {
        self.quiet.store(true, Ordering::Relaxed);
        // One tick of everybody, so that no event is made after this.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let deadline = Instant::now() + PATIENCE;
        while self.ledger.acknowledged() < self.ledger.sent() {
            let (sent, acknowledged) = (self.ledger.sent(), self.ledger.acknowledged());
            ensure!(Instant::now() < deadline, "{acknowledged} of {sent} events were acknowledged");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Ends everybody, and tells who had failed.
    pub(crate) async fn stop(mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Ok(Err(error)) = ended {
                eprintln!("a simulated client failed: {error:#}");
            }
        }
        self.tasks.shutdown().await;
    }
}
