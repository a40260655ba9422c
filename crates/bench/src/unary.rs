//! Single calls at a steady rate, against single-row inserts at the same rate.

use std::time::Duration;

use anyhow::Result;
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use connlog_testkit::database::connect;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::Request;
use tonic::transport::Channel;

use crate::fleet::Agent;
use crate::peer::{Layout, Row, Upsert};
use crate::report::Report;
use crate::service::Ingest;
use crate::sessions::Session;

/// Calls a second.
const RATE: u32 = 200;
/// Connections to the database on the other side.
const CLIENTS: usize = 4;

/// Measures `calls` of each, `rounds` times in turn.
pub(crate) async fn measure(
    database_url: &str,
    ingest: &Ingest,
    agent: &Agent,
    (calls, rounds): (u32, u32),
    report: &mut Report,
) -> Result<()> {
    let channel = Channel::from_shared(format!("http://{}", ingest.address()))?.connect().await?;
    let mut pairs = Vec::new();
    for _ in 0..rounds {
        let ours = paced(calls, |_| {
            let (mut client, token) = (ConnectionLogClient::new(channel.clone()), agent.token.clone());
            async move {
                let mut request =
                    Request::new(v1::ReportConnectionRequest { connection: Some(Session::now().connect()) });
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
                client.report_connection(request).await?;
                Ok(())
            }
        })
        .await?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = connect(database_url).await?;
            let upsert = Upsert::prepare(&client, Layout::Peer).await?;
            clients.push(std::sync::Arc::new((client, upsert)));
        }
        let theirs = paced(calls, |number| {
            let (client, agent) = (clients[number as usize % CLIENTS].clone(), agent.identity.clone());
            async move { client.1.run(&client.0, &[Row { agent, session: Session::now(), has_ended: false }]).await }
        })
        .await?;
        pairs.push((ours, theirs));
    }
    report.add_rounds("ingest.unary_latency_p99", &pairs);
    Ok(())
}

/// Runs `calls`, [`RATE`] a second whatever the others take, and returns the 99th percentile of what they took, in ms.
async fn paced<F: Future<Output = Result<()>> + Send + 'static>(calls: u32, call: impl Fn(u32) -> F) -> Result<f64> {
    let mut tick = interval(Duration::from_secs(1) / RATE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running = JoinSet::new();
    for number in 0..calls {
        tick.tick().await;
        let work = call(number);
        running.spawn(async move {
            let began = Instant::now();
            work.await.map(|()| began.elapsed().as_secs_f64() * 1000.0)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = running.join_next().await {
        times.push(done??);
    }
    Ok(crate::quantile(times, 99))
}
