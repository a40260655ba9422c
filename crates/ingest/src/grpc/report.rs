//! `ReportEvents`: a batch of a trusted reporter. Each event stands alone: one that cannot be accepted is kept as a dead
//! letter and named in the answer.

use std::sync::Arc;

use connlog_model::clock::Timestamp;
use connlog_model::event::{Event, Source as Reported};
use connlog_model::identity::{AgentIdentity, BootNumber};
use connlog_model::limits::{MAX_NAME_BYTES, MAX_REASON_BYTES, clean_text};
use connlog_proto::v1;
use connlog_store::LostRecord;
use connlog_store::tokens::ApiToken;
use tonic::Status;
use uuid::Uuid;

use crate::auth::Authenticator;
use crate::commit::{Item, Message, Sender, letter};
use crate::grpc::presence::{Presence, Presences};
use crate::grpc::unary::{UnaryCalls, submission};
use crate::grpc::{invalid, status, too_much};
use crate::pace::Pace;
use crate::parse::{Invalid, Source, Span, any_time, connection, optional_id, required_id, shrink_reported, web};

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
    /// Notes presences.
    pub presences: Presences,
}

/// What a message of a reporter says.
enum Said {
    Event(Event),
    Presence(Presence),
    Lost(LostRecord),
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
        let (mut rejected, mut presences, mut accepted) = (Vec::new(), Vec::<Presence>::new(), 0);
        for (seq, mut reported) in (0_u64..).zip(request.events) {
            shrink_reported(&mut reported);
            let (agent, parsed) = self.parse(token, &reported, now).await?;
            let message = Message::Reported(reported);
            match (agent, parsed) {
                (Some(agent), Ok(said)) => {
                    accepted += 1;
                    match said {
                        Said::Event(event) => submission.items.push(Item { event, seq, message, agent }),
                        Said::Lost(lost) => submission.lost.push(lost),
                        Said::Presence(presence) => {
                            presences.retain(|earlier| !earlier.is_of_same_agent(&presence));
                            presences.push(presence);
                        }
                    }
                }
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
        // A reporter's batches keep their order: they go to the same writer.
        let committed = self.calls.commit(token.id, submission).await?;
        for presence in &presences {
            self.presences.note(token.id, presence).await.map_err(|error| status(&error))?;
        }
        self.pace.pay(token.id, committed.looked_back, rejected.len() + committed.refused.len()).await;
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
    ) -> Result<(Option<Arc<AgentIdentity>>, Result<Said, Invalid>), Status> {
        let workspace_id = match required_id("workspace_id", &reported.workspace_id) {
            Ok(id) => id,
            Err(error) => return Ok((None, Err(error))),
        };
        let Some(agent) = self.agent(token, workspace_id, &reported.agent_name).await? else {
            return Ok((None, Err(Invalid::new("workspace_id", UNKNOWN_WORKSPACE))));
        };
        let parsed = self.parse_event(token.id, &agent, reported, now);
        Ok((Some(agent), parsed))
    }

    fn parse_event(
        &self,
        token_id: Uuid,
        agent: &Arc<AgentIdentity>,
        reported: &v1::ReportedEvent,
        now: Timestamp,
    ) -> Result<Said, Invalid> {
        let user_id = optional_id("user_id", &reported.user_id)?;
        let boot = optional_id("boot_id", &reported.boot_id)?.map(BootNumber::of);
        let source = Source { agent: Arc::clone(agent), boot, reported: Reported::Reporter, user_id };
        let span = Span::new(now, self.calls.max_event_age);
        match &reported.event {
            Some(v1::reported_event::Event::Connection(message)) => {
                connection(message, &source, &span).map(|event| Said::Event(Event::Agent(event)))
            }
            Some(v1::reported_event::Event::Web(message)) => {
                web(message, &source, &span).map(|event| Said::Event(Event::Web(event)))
            }
            Some(v1::reported_event::Event::Presence(message)) => {
                Presence::parse(agent, message, now).map(Said::Presence)
            }
            Some(v1::reported_event::Event::Lost(message)) => lost(token_id, agent, message, now).map(Said::Lost),
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

/// Namespace of the ids of losses that reporters tell. Fixed for ever: a replay must name the record that it made before.
const LOSS_NAMESPACE: Uuid = Uuid::from_u128(0x0d5e_3c61_7f28_4b9a_8e14_52c7_a90b_6df3);

/// Most events that one message may tell as lost.
const MAX_LOST: i64 = 1 << 53;

/// A loss that a reporter tells. The same content again is the same loss.
fn lost(
    token_id: Uuid,
    agent: &AgentIdentity,
    message: &v1::LostEvents,
    now: Timestamp,
) -> Result<LostRecord, Invalid> {
    let count = i64::try_from(message.count).ok().filter(|count| (1..=MAX_LOST).contains(count));
    let events = count.ok_or_else(|| Invalid::new("count", format!("{} is not between 1 and 2^53", message.count)))?;
    let time = |name, time: &Option<prost_types::Timestamp>| time.as_ref().map(|time| any_time(name, time)).transpose();
    let (since, until) = (time("since", &message.since)?, time("until", &message.until)?);
    let cause = match clean_text(&message.cause, MAX_REASON_BYTES) {
        cause if cause.is_empty() => "told by a reporter".to_owned(),
        cause => cause,
    };
    let workspace = &agent.workspace;
    let name =
        format!("{token_id} {} {:?} {events} {since:?} {until:?} {cause}", workspace.workspace_id, agent.agent_name);
    Ok(LostRecord {
        id: Uuid::new_v5(&LOSS_NAMESPACE, name.as_bytes()),
        recorded_at: now,
        organization_id: workspace.organization_id,
        workspace_id: workspace.workspace_id,
        agent_id: agent.agent_id,
        hole: None,
        events,
        since,
        until,
        cause,
    })
}

const UNKNOWN_WORKSPACE: &str = "is not a workspace of the directory";
