//! Through a pooler in transaction mode, against directly.

use anyhow::Result;
use connlog_testkit::database::connect;

use crate::cpu;
use crate::fleet::Agent;
use crate::ingest::{self, Size};
use crate::reads;
use crate::report::Report;
use crate::service::{Ingest, Service};

/// Measures events over streams and first pages of both, in turn.
pub(crate) async fn measure(
    database_url: &str,
    pooler_url: &str,
    direct: &Ingest,
    agents: &[Agent],
    size: Size,
    report: &mut Report,
) -> Result<()> {
    let client = connect(database_url).await?;
    let postmaster = cpu::postmaster(&client).await?;
    let agents = &agents[..size.agents as usize];
    let pooled = ingest::start(pooler_url, &["--database-pooled"])?;
    let direct_query = Service::start(database_url).await?;
    let pooled_query = Service::start_with(pooler_url, database_url, &["--database-pooled"]).await?;
    let (mut rates, mut pages) = (Vec::new(), Vec::new());
    let mut through_streams = ingest::open_streams(&pooled, agents).await?;
    let mut direct_streams = ingest::open_streams(direct, agents).await?;
    for round in 0..=size.rounds {
        client.batch_execute("CHECKPOINT").await?;
        let through = ingest::stream_round(&pooled, &mut through_streams, size, postmaster).await?;
        client.batch_execute("CHECKPOINT").await?;
        let directly = ingest::stream_round(direct, &mut direct_streams, size, postmaster).await?;
        let page = (reads::first_page_p95(&pooled_query).await?, reads::first_page_p95(&direct_query).await?);
        if round > 0 {
            rates.push((through.rate(size.events), directly.rate(size.events)));
            pages.push(page);
        }
    }
    report.add_rounds("load.pooled_ingest", &rates);
    report.add_rounds("load.pooled_first_page", &pages);
    Ok(())
}
