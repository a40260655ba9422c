//! `connlog.v1.ConnectionLog`: the streams of agents, and the calls that end in [`super::unary`] and [`super::report`].

mod active;
mod reconcile;
mod registry;
mod sequence;
mod session;
mod trace;

use std::time::Duration;

use chrono::TimeDelta;
use connlog_model::clock::Clock;
use connlog_proto::v1;
use connlog_proto::v1::connection_log_server::ConnectionLog;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::Store;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub use self::registry::Registry;
use self::session::Session;
pub(in crate::grpc) use self::session::listed;
use crate::auth;
use crate::commit::Committer;
use crate::conclusions::Conclusions;
use crate::grpc::report::Reports;
use crate::grpc::unary::UnaryCalls;
use crate::pace::Pace;

/// Answers that wait for a stream's client to read them; a client that does not read is not read either.
const OUTBOUND_ANSWERS: usize = 16;

/// Limits of a stream.
#[derive(Debug, Clone)]
pub struct StreamLimits {
    /// Most events in one message.
    pub max_batch_events: usize,
    /// Most unacknowledged events.
    pub max_in_flight_events: usize,
    /// How often the agent gives a sign of life.
    pub heartbeat_interval: TimeDelta,
    /// Silence after which the agent counts as lost.
    pub lost_after: TimeDelta,
    /// Age at which the stream is ended.
    pub max_age: Duration,
    /// Oldest time that an event may have.
    pub max_event_age: TimeDelta,
}

/// What streams work with.
#[derive(Clone)]
pub struct Streams {
    /// The database.
    pub store: Store,
    /// Where events go.
    pub committer: Committer,
    /// Where the time comes from.
    pub clock: Clock,
    /// Where inferred ends are logged.
    pub conclusions: Conclusions,
    /// Which stream owns which spool, in this process.
    pub registry: Registry,
    /// How fast an agent may go.
    pub pace: Pace,
    /// Their limits.
    pub limits: StreamLimits,
    /// Ends them.
    pub shutdown: Shutdown,
}

/// The service.
pub struct ConnectionLogService {
    /// Serves streams.
    pub streams: Streams,
    /// Serves single events.
    pub calls: UnaryCalls,
    /// Serves batches of reporters.
    pub reports: Reports,
}

#[tonic::async_trait]
impl ConnectionLog for ConnectionLogService {
    type StreamEventsStream = ReceiverStream<Result<v1::StreamEventsResponse, Status>>;

    async fn stream_events(
        &self,
        request: Request<Streaming<v1::StreamEventsRequest>>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let token = auth::agent(&request)?;
        let (outbound, answers) = mpsc::channel(OUTBOUND_ANSWERS);
        let session = Session::new(self.streams.clone(), token, request.into_inner(), outbound)?;
        tokio::spawn(session.run());
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn report_connection(&self, request: Request<v1::ReportConnectionRequest>) -> Result<Response<()>, Status> {
        let token = auth::agent(&request)?;
        self.calls.report_connection(token, request.into_inner().connection).await.map(Response::new)
    }

    async fn report_events(
        &self,
        request: Request<v1::ReportEventsRequest>,
    ) -> Result<Response<v1::ReportEventsResponse>, Status> {
        let token = auth::reporter(&request)?;
        self.reports.report(&token, request.into_inner()).await.map(Response::new)
    }
}
