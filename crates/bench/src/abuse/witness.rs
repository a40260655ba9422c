//! Somebody who does no harm while others do.

use std::time::{Duration, Instant};

use anyhow::Result;
use tonic::transport::Channel;

use crate::fleet::Agent;
use crate::service::{Ingest, Service};
use crate::sessions::{Batch, Session, messages};
use crate::stream::{Spool, Stream};

/// Between two events of the agent, and two pages of the auditor.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a page may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The waiting times of the harmless agent and auditor.
pub(super) struct Witness {
    pub(super) ack_p99: Duration,
    pub(super) page_p99: Duration,
    /// Acknowledgements and pages that did not come.
    pub(super) failures: usize,
}

impl Witness {
    /// Reports a connection and reads a page again and again, each time anew: a connection, a Hello, a token.
    pub(super) async fn watch(ingest: &Ingest, query: &Service, agent: &Agent, time: Duration) -> Result<Self> {
        let until = Instant::now() + time;
        let report = async {
            let (mut times, mut failures, mut spool) = (Vec::new(), 0, Spool::new());
            while Instant::now() < until {
                let began = Instant::now();
                match tokio::time::timeout(PATIENCE, report(ingest, agent, spool)).await {
                    Ok(Ok(acknowledged)) => {
                        spool = acknowledged;
                        times.push(began.elapsed());
                    }
                    Ok(Err(_)) | Err(_) => failures += 1,
                }
                tokio::time::sleep(PAUSE).await;
            }
            (times, failures)
        };
        let read = async {
            let (mut times, mut failures) = (Vec::new(), 0);
            while Instant::now() < until {
                let began = Instant::now();
                match tokio::time::timeout(PATIENCE, query.page_anew()).await {
                    Ok(Ok(())) => times.push(began.elapsed()),
                    Ok(Err(_)) | Err(_) => failures += 1,
                }
                tokio::time::sleep(PAUSE).await;
            }
            (times, failures)
        };
        let ((acks, unacknowledged), (pages, unread)) = tokio::join!(report, read);
        Ok(Self { ack_p99: p99(acks), page_p99: p99(pages), failures: unacknowledged + unread })
    }
}

async fn report(ingest: &Ingest, agent: &Agent, spool: Spool) -> Result<Spool> {
    let channel = Channel::from_shared(format!("http://{}", ingest.address()))?.connect().await?;
    let mut stream = Stream::open(channel, &agent.token, spool).await?;
    let batch = Batch { connects: vec![Session::now()], disconnects: Vec::new() };
    stream.send_all(messages(&[batch], spool.acked + 1)).await?;
    Ok(stream.spool())
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let index = (times.len() * 99).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or(Duration::MAX)
}
