//! `ReportConnection`: one event of an agent, answered after its commit. Both APIs end here.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use connlog_model::clock::Clock;
use connlog_model::event::{Event, Source as Reported};
use connlog_proto::v1;
use connlog_store::agents::AgentToken;
use opentelemetry::Context;
use tonic::Status;
use uuid::Uuid;

use crate::commit::{Committed, Committer, Item, Message, Outcome, Sender, Submission, agent_key, letter};
use crate::grpc::{invalid, replaced_status, too_much, unavailable};
use crate::pace::Pace;
use crate::parse::{Invalid, Source, Span, connection, shrink_connection};

/// Commits single calls.
#[derive(Clone)]
pub struct UnaryCalls {
    /// Where events go.
    pub committer: Committer,
    /// Where the time comes from.
    pub clock: Clock,
    /// Oldest time that an event may have.
    pub max_event_age: TimeDelta,
    /// How long a call waits for its commit.
    pub commit_timeout: Duration,
    /// How fast an agent may go.
    pub pace: Pace,
}

impl UnaryCalls {
    /// Commits one event of `agent`. What cannot be accepted is kept as a dead letter, and `INVALID_ARGUMENT`.
    pub async fn report_connection(&self, token: AgentToken, message: Option<v1::Connection>) -> Result<(), Status> {
        let AgentToken { agent, replaced_at } = token;
        let Some(mut message) = message else {
            return Err(invalid(&Invalid::new("connection", "is missing")));
        };
        let paced = agent.agent_id.unwrap_or(agent.workspace.workspace_id);
        if !self.pace.allows(paced, 1) {
            return Err(too_much("the agent sends too many events"));
        }
        shrink_connection(&mut message);
        let sender = Sender::Agent { agent_id: agent.agent_id };
        let source = Source { agent: Arc::clone(&agent), boot: None, reported: Reported::Agent, user_id: None };
        let now = self.clock.now();
        let parsed = connection(&message, &source, &Span::new(now, self.max_event_age));
        let message = Message::Connection(message);
        let mut submission = submission(sender);
        let key = agent_key(&agent);
        match parsed {
            Ok(event) if replaced_at.is_some_and(|replaced_at| event.time > replaced_at) => Err(replaced_status()),
            Ok(event) => {
                submission.items.push(Item { event: Event::Agent(event), seq: 0, message, agent });
                let committed = self.commit(key, submission).await?;
                self.pace.pay(paced, committed.looked_back, committed.refused.len()).await;
                match committed.refused.into_iter().next() {
                    Some((_, field, reason)) => Err(invalid(&Invalid::new(field, reason))),
                    None => Ok(()),
                }
            }
            Err(error) => {
                let sender = &submission.sender;
                submission.rejected.push(letter(sender, 0, Some(&agent), &message, error.field, &error.reason, now));
                self.commit(key, submission).await?;
                self.pace.pay(paced, 0, 1).await;
                Err(invalid(&error))
            }
        }
    }

    /// Commits a submission, or says when to come back. One that was told to may be committed all the same: a replay
    /// changes nothing.
    pub(super) async fn commit(&self, key: Uuid, submission: Submission) -> Result<Committed, Status> {
        let outcome = self
            .committer
            .try_submit(key, submission)
            .map_err(|_| too_much("too many events are waiting to be committed"))?;
        self.answer(outcome).await
    }

    async fn answer(&self, outcome: Outcome) -> Result<Committed, Status> {
        let mut database_down = self.committer.database_down();
        tokio::select! {
            committed = outcome => {
                let committed = committed.map_err(|_| unavailable("the service is stopping; the event is not acknowledged"))?;
                match &committed.held {
                    Some(cause) => Err(unavailable(&format!("the database refuses the event for now, so it is not acknowledged: {cause}"))),
                    None => Ok(committed),
                }
            }
            _ = database_down.wait_for(Option::is_some) => Err(unavailable("the database is unavailable; the event is not acknowledged")),
            () = tokio::time::sleep(self.commit_timeout) => Err(unavailable("the commit takes too long; the event is not acknowledged")),
        }
    }
}

pub(super) fn submission(sender: Sender) -> Submission {
    Submission {
        request_id: Uuid::new_v4(),
        sender,
        items: Vec::new(),
        rejected: Vec::new(),
        lost: Vec::new(),
        stamp: None,
        trace: Context::current(),
    }
}
