//! `coder.agent.v2.Agent`: the one method that existing agents call to report connections.

use connlog_proto::coder::ReportConnectionRequest;
use connlog_proto::coder::agent_server::Agent;
use tonic::{Request, Response, Status};

use crate::auth;
use crate::grpc::unary::UnaryCalls;
use crate::parse::from_coder;

/// The service.
pub struct CoderAgent {
    /// Commits their events.
    pub calls: UnaryCalls,
}

#[tonic::async_trait]
impl Agent for CoderAgent {
    async fn report_connection(&self, request: Request<ReportConnectionRequest>) -> Result<Response<()>, Status> {
        let token = auth::agent(&request)?;
        let connection = request.into_inner().connection.map(from_coder);
        self.calls.report_connection(token, connection).await.map(Response::new)
    }
}
