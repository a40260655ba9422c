//! A connection to an agent, as a function of the *set* of events about it.
//!
//! [`Connection::merge`] is commutative, associative and idempotent (the property tests below say so), so order,
//! duplication, batching and replica make no difference to a row. The same function folds the events of a batch and
//! merges the result into what is stored. The rules:
//!
//! - `connect_time` is the least of all connect times, `connected_at`s and disconnect times.
//! - `ip`, `app_name`, `method`, `client_session_id`, `user_id`: each from the earliest connect that has it (ties: the
//!   smaller value), else from the earliest disconnect that has it.
//! - The end is the earliest real disconnect (ties: the smaller reason, then code, then byte counts).
//! - A real end beats an inferred one, whichever came first; an inferred end never changes a completed connection.
//! - What the directory says of the agent (names, owner, organization) is kept as it was when the row was first written;
//!   only an agent that it did not know then is filled in.

use std::cmp::Ordering;
use std::net::IpAddr;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{Action, AgentEvent, Outcome};
use crate::identity::AgentIdentity;
use crate::method::Method;

/// Reason of the inferred end of what an agent's earlier boot had open.
pub const REASON_AGENT_RESTARTED: &str = "agent restarted";
/// Reason of the inferred end of what a silent agent had open.
pub const REASON_AGENT_LOST: &str = "agent lost";
/// Reason of the inferred end of what an agent no longer lists although all that it had to say is committed.
pub const REASON_DISCONNECT_LOST: &str = "disconnect lost";
/// Reason of the inferred end of what a deleted agent or workspace had open.
pub const REASON_WORKSPACE_DELETED: &str = "workspace deleted";

/// Added to the rank of what came from a disconnect, so that every connect goes before every disconnect. Microseconds
/// since the epoch stay far below it for 146,000 years.
const DISCONNECT_RANK: i64 = 1 << 62;

/// A value with the rank of the event that it came from; the smallest rank wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked<T> {
    /// Microseconds since the epoch of the event, plus 2^62 if it was a disconnect.
    pub rank: i64,
    /// The value.
    pub value: T,
}

/// How and when a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Its agent reported the end.
    Real {
        /// When.
        time: Timestamp,
        /// How.
        outcome: Outcome,
    },
    /// The server concluded that it must have ended.
    Inferred {
        /// Time of the last sign of life, or of the deletion.
        time: Timestamp,
        /// Why the server thinks so.
        reason: String,
    },
}

impl End {
    /// When the connection ended.
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Real { time, .. } | Self::Inferred { time, .. } => *time,
        }
    }
}

/// A connection to an agent: ongoing if it has no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Row id, see [`crate::identity::connection_row_id`].
    pub id: Uuid,
    /// The agent's id of the connection.
    pub connection_id: Uuid,
    /// The agent, as the directory knew it when the row was first written.
    pub agent: AgentIdentity,
    /// The boot of the agent under which it is open, see [`AgentEvent::boot_id`]. Known only while it is open.
    pub boot_id: Option<Uuid>,
    /// When it began, as far as is known.
    pub connect_time: Timestamp,
    /// How it came.
    pub method: Ranked<Method>,
    /// Normalized name of the client app.
    pub app_name: Option<Ranked<String>>,
    /// Address of the client.
    pub ip: Option<Ranked<IpAddr>>,
    /// The client's id of its session.
    pub client_session_id: Option<Ranked<Uuid>>,
    /// Who connected.
    pub user_id: Option<Ranked<Uuid>>,
    /// How it ended.
    pub end: Option<End>,
}

impl Connection {
    /// What a single event says.
    pub fn from_event(event: &AgentEvent) -> Self {
        let micros = event.time.timestamp_micros();
        let (rank, end) = match &event.action {
            Action::Connect => (micros, None),
            Action::Disconnect { outcome, .. } => {
                (micros + DISCONNECT_RANK, Some(End::Real { time: event.time, outcome: outcome.clone() }))
            }
        };
        let client = &event.client;
        Self {
            id: event.row_id(),
            connection_id: event.connection_id,
            agent: (*event.agent).clone(),
            boot_id: event.boot_id,
            connect_time: event.start(),
            method: Ranked { rank, value: client.method },
            app_name: client.app_name.clone().map(|value| Ranked { rank, value }),
            ip: client.ip.map(|value| Ranked { rank, value }),
            client_session_id: client.session_id.map(|value| Ranked { rank, value }),
            user_id: client.user_id.map(|value| Ranked { rank, value }),
            end,
        }
    }

    /// What both say together, by the rules of this module. Both must be about the same row.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        debug_assert_eq!(self.id, other.id, "only what is about the same row can be merged");
        Self {
            id: self.id,
            connection_id: self.connection_id,
            agent: AgentIdentity { agent_id: self.agent.agent_id.or(other.agent.agent_id), ..self.agent },
            boot_id: self.boot_id.or(other.boot_id),
            connect_time: self.connect_time.min(other.connect_time),
            method: earlier(self.method, other.method),
            app_name: earlier_known(self.app_name, other.app_name),
            ip: earlier_known(self.ip, other.ip),
            client_session_id: earlier_known(self.client_session_id, other.client_session_id),
            user_id: earlier_known(self.user_id, other.user_id),
            end: merge_ends(self.end, other.end),
        }
    }

    /// The ranks of the client's attributes, for storage: none if all of them came from a connect at `connect_time`,
    /// which is the rule. In the order `method, app_name, ip, client_session_id, user_id`; an absent one has rank 0.
    pub fn attribute_ranks(&self) -> Option<[i64; 5]> {
        let usual = self.connect_time.timestamp_micros();
        let ranks = [
            Some(self.method.rank),
            self.app_name.as_ref().map(|ranked| ranked.rank),
            self.ip.as_ref().map(|ranked| ranked.rank),
            self.client_session_id.as_ref().map(|ranked| ranked.rank),
            self.user_id.as_ref().map(|ranked| ranked.rank),
        ];
        if ranks.iter().flatten().all(|&rank| rank == usual) {
            None
        } else {
            Some(ranks.map(Option::unwrap_or_default))
        }
    }
}

fn earlier<T: Ord>(a: Ranked<T>, b: Ranked<T>) -> Ranked<T> {
    match a.rank.cmp(&b.rank).then_with(|| a.value.cmp(&b.value)) {
        Ordering::Greater => b,
        Ordering::Less | Ordering::Equal => a,
    }
}

fn earlier_known<T: Ord>(a: Option<Ranked<T>>, b: Option<Ranked<T>>) -> Option<Ranked<T>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(earlier(a, b)),
        (a, b) => a.or(b),
    }
}

fn merge_ends(a: Option<End>, b: Option<End>) -> Option<End> {
    use End::{Inferred, Real};
    let (a, b) = match (a, b) {
        (Some(a), Some(b)) => (a, b),
        (a, b) => return a.or(b),
    };
    let a_wins = match (&a, &b) {
        (Real { time, outcome }, Real { time: other_time, outcome: other_outcome }) => {
            (time, outcome) <= (other_time, other_outcome)
        }
        (Inferred { time, reason }, Inferred { time: other_time, reason: other_reason }) => {
            (time, reason) <= (other_time, other_reason)
        }
        (Real { .. }, Inferred { .. }) => true,
        (Inferred { .. }, Real { .. }) => false,
    };
    Some(if a_wins { a } else { b })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;
    use crate::event::Client;
    use crate::identity::Workspace;

    fn at(micros: i64) -> Timestamp {
        DateTime::from_timestamp_micros(micros).unwrap()
    }

    fn agent() -> Arc<AgentIdentity> {
        let workspace = Workspace {
            organization_id: Uuid::from_u128(1),
            owner_id: Uuid::from_u128(2),
            workspace_id: Uuid::from_u128(3),
            workspace_name: "dev".to_owned(),
        };
        Arc::new(AgentIdentity { agent_id: Some(Uuid::from_u128(4)), agent_name: "main".to_owned(), workspace })
    }

    prop_compose! {
        fn outcome()(reason in "[ab]?", code in 0..2, rx in proptest::option::of(0..2_i64)) -> Outcome {
            Outcome { reason, code, rx_bytes: rx, tx_bytes: None }
        }
    }

    prop_compose! {
        fn event()(
            time in 0..6_i64,
            app in proptest::option::of("[ab]"),
            ip in proptest::option::of(0..3_u32),
            user in proptest::option::of(0..2_u128),
            pty in any::<bool>(),
            disconnect in proptest::option::of((proptest::option::of(0..6_i64), outcome())),
        ) -> Connection {
            let client = Client {
                method: if pty { Method::ReconnectingPty } else { Method::Ssh },
                app_name: app,
                ip: ip.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
                session_id: None,
                user_id: user.map(Uuid::from_u128),
            };
            let action = match disconnect {
                None => Action::Connect,
                Some((connected_at, outcome)) => Action::Disconnect { connected_at: connected_at.map(at), outcome },
            };
            Connection::from_event(&AgentEvent {
                agent: agent(),
                connection_id: Uuid::from_u128(9),
                boot_id: None,
                time: at(time),
                time_is_receipt: false,
                client,
                action,
            })
        }
    }

    proptest! {
        #[test]
        fn merging_is_commutative(a in event(), b in event()) {
            prop_assert_eq!(a.clone().merge(b.clone()), b.merge(a));
        }

        #[test]
        fn merging_is_associative(a in event(), b in event(), c in event()) {
            prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.merge(b.merge(c)));
        }

        #[test]
        fn merging_is_idempotent(a in event(), b in event()) {
            let merged = a.clone().merge(b.clone());
            prop_assert_eq!(merged.clone().merge(b), merged.clone());
            prop_assert_eq!(merged.clone().merge(a), merged);
        }

        #[test]
        fn a_real_end_beats_an_inferred_one(a in event()) {
            let mut inferred = a.clone();
            inferred.end = Some(End::Inferred { time: at(0), reason: REASON_AGENT_LOST.to_owned() });
            let expected = if a.end.is_some() { a.end.clone() } else { inferred.end.clone() };
            prop_assert_eq!(inferred.merge(a).end, expected);
        }
    }
}
