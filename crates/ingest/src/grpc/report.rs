//! `ReportEvents`: a batch of a trusted reporter. Each event stands alone: one that cannot be accepted is kept as a dead
//! letter and named in the answer.

use std::sync::Arc;

use connlog_model::clock::Timestamp;
use connlog_model::event::{Event, Source as Reported};
use connlog_model::identity::AgentIdentity;
use connlog_model::limits::{MAX_NAME_BYTES, clean_text};
use connlog_proto::v1;
use connlog_store::tokens::ApiToken;
use tonic::Status;
use uuid::Uuid;

use crate::auth::Authenticator;
use crate::commit::{Item, Message, Sender, letter};
use crate::grpc::unary::{UnaryCalls, submission};
use crate::grpc::{invalid, status, too_much};
use crate::pace::Pace;
use crate::parse::{Invalid, Source, Span, connection, optional_id, required_id, shrink_reported, web};

/// Commits batches of reporters.
#[derive(Clone)]
pub struct Reports {
    /// Finds the agents that reporters name.
    pub authenticator: Authenticator,
    /// Commits.
    pub calls: UnaryCalls,
    /// Most events of one request.
    pub max_events: usize,
    /// How fast a reporter may go.
    pub pace: Pace,
}

impl Reports {
    /// Commits the acceptable events of a request of `token`, and keeps the others.
    pub async fn report(
        &self,
        token: &ApiToken,
        request: v1::ReportEventsRequest,
    ) -> Result<v1::ReportEventsResponse, Status> {
        if request.events.len() > self.max_events {
            let reason = format!("has {} entries, at most {} are accepted", request.events.len(), self.max_events);
            return Err(invalid(&Invalid::new("events", reason)));
        }
        if !self.pace.allows(token.id, request.events.len()) {
            return Err(too_much("the reporter sends too many events"));
        }
        let now = self.calls.clock.now();
        let mut submission = submission(Sender::Reporter { token_id: token.id });
        let mut rejected = Vec::new();
        for (seq, mut reported) in (0_u64..).zip(request.events) {
            shrink_reported(&mut reported);
            let (agent, parsed) = self.parse(token, &reported, now).await?;
            let message = Message::Reported(reported);
            match (agent, parsed) {
                (Some(agent), Ok(event)) => submission.items.push(Item { event, seq, message, agent }),
                (agent, parsed) => {
                    let error = parsed.err().unwrap_or_else(|| Invalid::new("workspace_id", UNKNOWN_WORKSPACE));
                    let agent = agent.as_deref();
                    submission.rejected.push(letter(
                        &submission.sender,
                        seq,
                        agent,
                        &message,
                        error.field,
                        &error.reason,
                        now,
                    ));
                    rejected.push(v1::Rejection { seq, field: error.field.to_owned(), reason: error.reason });
                }
            }
        }
        let accepted = submission.items.len();
        // A reporter's batches keep their order: they go to the same writer.
        let committed = self.calls.commit(token.id, submission).await?;
        let accepted = accepted - committed.refused.len();
        rejected.extend(committed.refused.into_iter().map(|(seq, field, reason)| v1::Rejection {
            seq,
            field: field.to_owned(),
            reason,
        }));
        rejected.sort_by_key(|rejection| rejection.seq);
        Ok(v1::ReportEventsResponse { accepted: u32::try_from(accepted).unwrap_or(u32::MAX), rejected })
    }

    /// The agent that an event is about, as far as it is known, and the event.
    async fn parse(
        &self,
        token: &ApiToken,
        reported: &v1::ReportedEvent,
        now: Timestamp,
    ) -> Result<(Option<Arc<AgentIdentity>>, Result<Event, Invalid>), Status> {
        let workspace_id = match required_id("workspace_id", &reported.workspace_id) {
            Ok(id) => id,
            Err(error) => return Ok((None, Err(error))),
        };
        let Some(agent) = self.agent(token, workspace_id, &reported.agent_name).await? else {
            return Ok((None, Err(Invalid::new("workspace_id", UNKNOWN_WORKSPACE))));
        };
        let parsed = self.parse_event(&agent, reported, now);
        Ok((Some(agent), parsed))
    }

    fn parse_event(
        &self,
        agent: &Arc<AgentIdentity>,
        reported: &v1::ReportedEvent,
        now: Timestamp,
    ) -> Result<Event, Invalid> {
        let user_id = optional_id("user_id", &reported.user_id)?;
        let source = Source { agent: Arc::clone(agent), boot: None, reported: Reported::Reporter, user_id };
        let span = Span::new(now, self.calls.max_event_age);
        match &reported.event {
            Some(v1::reported_event::Event::Connection(message)) => {
                connection(message, &source, &span).map(Event::Agent)
            }
            Some(v1::reported_event::Event::Web(message)) => web(message, &source, &span).map(Event::Web),
            None => Err(Invalid::new("event", "is missing, or of a kind that this server does not know")),
        }
    }

    /// An organization out of the token's reach looks like an unknown workspace.
    async fn agent(
        &self,
        token: &ApiToken,
        workspace_id: Uuid,
        name: &str,
    ) -> Result<Option<Arc<AgentIdentity>>, Status> {
        let name = clean_text(name, MAX_NAME_BYTES);
        let agent = self.authenticator.agent_by_name(workspace_id, &name).await.map_err(|error| status(&error))?;
        Ok(agent.filter(|agent| {
            let organization = agent.workspace.organization_id;
            token.organizations.as_ref().is_none_or(|reached| reached.contains(&organization))
        }))
    }
}

const UNKNOWN_WORKSPACE: &str = "is not a workspace of the directory";
