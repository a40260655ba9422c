//! A connection to an agent, as its events tell it. The first word stands.
//!
//! - What is recorded is never overwritten by a later event. What is unknown is filled in by a later event that agrees.
//! - The first real end replaces an inferred one. Nothing replaces a real end, and only a list of what its agent has open reopens a
//!   connection whose end was inferred.
//! - An end that comes first makes the connection: it began at `connected_at`, else its beginning is unknown until a
//!   connect, or a later `connected_at`, says it.
//! - What differs from what is recorded leaves it alone, and is kept beside it as a contradiction. It fills in nothing, but
//!   for a user whom a reporter names where none is recorded: else an agent that reports first with a wrong address would
//!   hide who it was.
//! - Beginnings that an agent and a reporter give agree within [`START_TOLERANCE`]; the first to arrive stands.
//!
//! Events that agree give the same connection in every order, but for which of two agreeing beginnings stands.

use std::net::IpAddr;
use std::sync::Arc;

use chrono::TimeDelta;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{Action, AgentEvent, Outcome, Source};
use crate::identity::{AgentIdentity, BootNumber};
use crate::method::Method;

/// Reason of the inferred end of what an agent's earlier boot had open.
pub const REASON_AGENT_RESTARTED: &str = "agent restarted";
/// Reason of the inferred end of what a silent agent had open.
pub const REASON_AGENT_LOST: &str = "agent lost";
/// Reason of the inferred end of what an agent no longer lists although all that it had to say is committed.
pub const REASON_DISCONNECT_LOST: &str = "disconnect lost";
/// Reason of the inferred end of what a deleted agent or workspace had open.
pub const REASON_WORKSPACE_DELETED: &str = "workspace deleted";
/// Reason of the inferred end of a connection without a boot whose disconnect did not come for long.
pub const REASON_NO_END_CAME: &str = "no end came";

/// How far back a beginning that comes late may lie before the first event about a connection, and a connection that an event without a
/// beginning is about. Further back it contradicts what is recorded: else whoever may speak of a connection backdates it to where
/// retention removes it.
pub const REACH: TimeDelta = TimeDelta::days(45);

/// How far the beginnings that an agent and a reporter give may lie apart and still agree: their clocks differ.
pub const START_TOLERANCE: TimeDelta = TimeDelta::seconds(5);

/// How and when a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The end was reported.
    Real {
        /// When it ended, but not before it began.
        time: Timestamp,
        /// How.
        outcome: Outcome,
        /// When the server got the report.
        received_at: Timestamp,
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
    pub agent: Arc<AgentIdentity>,
    /// The boot of the agent under which it is open, see [`AgentEvent::boot`]. Known only while it is open.
    pub boot: Option<BootNumber>,
    /// When it began; if nobody said so, the time of the first event.
    pub connect_time: Timestamp,
    /// Who said when it began; none if nobody did.
    pub start_source: Option<Source>,
    /// How it came, if known.
    pub method: Option<Method>,
    /// Normalized name of the client app, if known.
    pub app_name: Option<String>,
    /// Address of the client, if known.
    pub ip: Option<IpAddr>,
    /// Public address of the client of a tunnelled session, if known.
    pub client_ip: Option<IpAddr>,
    /// The client's id of its session, if known.
    pub client_session_id: Option<Uuid>,
    /// Who connected, if a reporter said so.
    pub user_id: Option<Uuid>,
    /// How it ended.
    pub end: Option<End>,
    /// When the server got the first event about it.
    pub received_at: Timestamp,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It agrees with what is recorded, and may have filled something in.
    Agreed,
    /// It differs in these fields, and is kept as a contradiction.
    Contradicted(Vec<&'static str>),
    /// It would begin the connection below the retention floor, and is not taken.
    BelowFloor,
}

impl Connection {
    /// The connection that a first event makes; none if it would begin below `floor`.
    pub fn begin(event: &AgentEvent, floor: Timestamp) -> Option<(Self, Heard)> {
        let start = event.start_claim();
        let connect_time = start.unwrap_or(event.time);
        if connect_time < floor {
            return None;
        }
        let mut connection = Self {
            id: event.row_id(),
            connection_id: event.connection_id,
            agent: Arc::clone(&event.agent),
            boot: event.boot,
            connect_time,
            start_source: start.map(|_| event.source),
            method: None,
            app_name: None,
            ip: None,
            client_ip: None,
            client_session_id: None,
            user_id: None,
            end: None,
            received_at: event.received_at,
        };
        let heard = connection.hear(event, floor);
        // Even a first event may contradict itself, by an end before its beginning.
        connection.fill_client(event);
        Some((connection, heard))
    }

    /// Takes the word of a further event, or of the first one again.
    pub fn hear(&mut self, event: &AgentEvent, floor: Timestamp) -> Heard {
        let mut wrong = self.differing_client(event);
        let mut start = event.start_claim();
        match (start, self.start_source) {
            (Some(told), Some(source)) => {
                let tolerated = source != event.source && (told - self.connect_time).abs() <= START_TOLERANCE;
                if told != self.connect_time && !tolerated {
                    wrong.push("connect_time");
                }
            }
            (Some(told), None) if self.end.as_ref().is_some_and(|end| told > end.time()) => wrong.push("connect_time"),
            // It would move the row so far back that retention takes it long before its time.
            (Some(told), None) if told < self.connect_time - REACH => wrong.push("connect_time"),
            // It may end what is open, but not move it to where things are purged.
            (Some(told), None) if told < floor && event.action != Action::Connect => start = None,
            (Some(told), None) if told < floor => return Heard::BelowFloor,
            (Some(_) | None, None) | (None, Some(_)) => {}
        }
        if event.source == Source::Reporter {
            self.user_id = self.user_id.or(event.client.user_id);
        }
        if let Action::Disconnect { outcome, .. } = &event.action {
            self.hear_end(event, outcome, start, &mut wrong);
        }
        self.boot = if self.end.is_some() { None } else { self.boot.or(event.boot) };
        if !wrong.is_empty() {
            return Heard::Contradicted(wrong);
        }
        self.fill_client(event);
        if let (Some(start), None) = (start, self.start_source) {
            (self.connect_time, self.start_source) = (start, Some(event.source));
        }
        if let (Some(End::Real { outcome: known, .. }), Action::Disconnect { outcome, .. }) =
            (&mut self.end, &event.action)
        {
            known.fill(outcome);
        }
        Heard::Agreed
    }

    /// The first real end stands; it takes the place of an inferred one. `start` is the beginning that the event gives.
    fn hear_end(
        &mut self,
        event: &AgentEvent,
        outcome: &Outcome,
        start: Option<Timestamp>,
        wrong: &mut Vec<&'static str>,
    ) {
        if let Some(End::Real { time, outcome: known, .. }) = &self.end {
            // An end without a time of its own is as old as its receipt, which is another one with each replay.
            if !event.time_is_receipt && event.time != *time {
                wrong.push("disconnect_time");
            }
            wrong.extend(known.differing(outcome));
            return;
        }
        let begins = start.filter(|_| self.start_source.is_none() && wrong.is_empty()).unwrap_or(self.connect_time);
        let mut time = event.time;
        if time < begins {
            wrong.push("disconnect_time");
            time = time.max(self.connect_time);
        }
        self.end = Some(End::Real { time, outcome: outcome.clone(), received_at: event.received_at });
    }

    /// What an event says of the client that differs from what is recorded.
    fn differing_client(&self, event: &AgentEvent) -> Vec<&'static str> {
        let client = &event.client;
        let mut wrong = Vec::new();
        let mut compare = |field, differs: bool| {
            if differs {
                wrong.push(field);
            }
        };
        compare("method", differs(self.method.as_ref(), client.method.as_ref()));
        compare("app_name", differs(self.app_name.as_ref(), client.app_name.as_ref()));
        compare("ip", differs(self.ip.as_ref(), client.ip.as_ref()));
        compare("client_ip", differs(self.client_ip.as_ref(), client.client_ip.as_ref()));
        compare("client_session_id", differs(self.client_session_id.as_ref(), client.session_id.as_ref()));
        if event.source == Source::Reporter {
            compare("user_id", differs(self.user_id.as_ref(), client.user_id.as_ref()));
        }
        wrong
    }

    fn fill_client(&mut self, event: &AgentEvent) {
        let client = &event.client;
        self.method = self.method.or(client.method);
        self.ip = self.ip.or(client.ip);
        self.client_ip = self.client_ip.or(client.client_ip);
        self.client_session_id = self.client_session_id.or(client.session_id);
        if self.app_name.is_none() {
            self.app_name.clone_from(&client.app_name);
        }
        if event.source == Source::Reporter {
            self.user_id = self.user_id.or(client.user_id);
        }
    }
}

/// Whether both are known and not the same.
fn differs<T: PartialEq>(known: Option<&T>, told: Option<&T>) -> bool {
    matches!((known, told), (Some(known), Some(told)) if known != told)
}

impl Outcome {
    /// The fields of another outcome that differ from those that are known.
    fn differing(&self, other: &Self) -> Vec<&'static str> {
        let mut wrong = Vec::new();
        if !self.reason.is_empty() && !other.reason.is_empty() && self.reason != other.reason {
            wrong.push("reason");
        }
        if differs(self.code.as_ref(), other.code.as_ref()) {
            wrong.push("code");
        }
        if differs(self.rx_bytes.as_ref(), other.rx_bytes.as_ref()) {
            wrong.push("rx_bytes");
        }
        if differs(self.tx_bytes.as_ref(), other.tx_bytes.as_ref()) {
            wrong.push("tx_bytes");
        }
        wrong
    }

    /// Takes over what is unknown.
    fn fill(&mut self, other: &Self) {
        if self.reason.is_empty() {
            self.reason.clone_from(&other.reason);
        }
        self.code = self.code.or(other.code);
        self.rx_bytes = self.rx_bytes.or(other.rx_bytes);
        self.tx_bytes = self.tx_bytes.or(other.tx_bytes);
    }
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

    const NO_FLOOR: Timestamp = DateTime::<chrono::Utc>::MIN_UTC;

    fn at(seconds: i64) -> Timestamp {
        DateTime::from_timestamp(seconds, 0).unwrap()
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

    fn event(source: Source, time: i64, client: Client, action: Action) -> AgentEvent {
        AgentEvent {
            agent: agent(),
            connection_id: Uuid::from_u128(9),
            boot: None,
            time: at(time),
            time_is_receipt: false,
            source,
            received_at: at(1_000),
            client,
            action,
        }
    }

    /// The connection after some events, and what became of each.
    fn told(events: &[AgentEvent], floor: Timestamp) -> (Option<Connection>, Vec<Heard>) {
        let mut connection = None::<Connection>;
        let mut heard = Vec::new();
        for event in events {
            heard.push(match &mut connection {
                Some(connection) => connection.hear(event, floor),
                none => match Connection::begin(event, floor) {
                    Some((begun, first)) => {
                        *none = Some(begun);
                        first
                    }
                    None => Heard::BelowFloor,
                },
            });
        }
        (connection, heard)
    }

    prop_compose! {
        fn client(reporter: bool)(
            terminal in proptest::option::of(any::<bool>()),
            app in proptest::option::of("[ab]"),
            ip in proptest::option::of(0..2_u32),
            user in proptest::option::of(1..3_u128),
        ) -> Client {
            Client {
                method: terminal.map(|terminal| if terminal { Method::ReconnectingPty } else { Method::Ssh }),
                app_name: app,
                ip: ip.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
                client_ip: None,
                session_id: None,
                user_id: user.filter(|_| reporter).map(Uuid::from_u128),
            }
        }
    }

    prop_compose! {
        fn outcome()(reason in "[ab]?", code in proptest::option::of(0..2), rx in proptest::option::of(1..3_i64)) -> Outcome {
            Outcome { reason, code, rx_bytes: rx, tx_bytes: None }
        }
    }

    fn any_event() -> impl Strategy<Value = AgentEvent> {
        any::<bool>().prop_flat_map(|reporter| {
            let source = if reporter { Source::Reporter } else { Source::Agent };
            let end = proptest::option::of((proptest::option::of(0..20_i64), outcome()));
            (0..20_i64, client(reporter), end).prop_map(move |(time, client, end)| {
                let action = match end {
                    None => Action::Connect,
                    Some((start, outcome)) => Action::Disconnect { connected_at: start.map(at), outcome },
                };
                event(source, time, client, action)
            })
        })
    }

    /// Events that say the same, each of them a part of it, and an order of them.
    fn agreeing() -> impl Strategy<Value = (Vec<AgentEvent>, Vec<AgentEvent>)> {
        let parts = proptest::collection::vec((any::<[bool; 6]>(), any::<bool>(), any::<bool>(), any::<bool>()), 1..7);
        (client(true), outcome(), 0..20_i64, 20..40_i64, parts).prop_flat_map(|(client, outcome, start, end, parts)| {
            let events: Vec<AgentEvent> = parts
                .into_iter()
                .map(|(says, reporter, is_end, says_start)| {
                    let source = if reporter { Source::Reporter } else { Source::Agent };
                    let part = Client {
                        method: client.method.filter(|_| says[0]),
                        app_name: client.app_name.clone().filter(|_| says[1]),
                        ip: client.ip.filter(|_| says[2]),
                        client_ip: None,
                        session_id: None,
                        user_id: client.user_id.filter(|_| says[3] && reporter),
                    };
                    if !is_end {
                        return event(source, start, part, Action::Connect);
                    }
                    let outcome = Outcome {
                        reason: if says[4] { outcome.reason.clone() } else { String::new() },
                        code: outcome.code.filter(|_| says[5]),
                        rx_bytes: outcome.rx_bytes.filter(|_| says[4]),
                        tx_bytes: None,
                    };
                    let connected_at = says_start.then(|| at(start));
                    event(source, end, part, Action::Disconnect { connected_at, outcome })
                })
                .collect();
            let shuffled = Just(events.clone()).prop_shuffle();
            (Just(events), shuffled)
        })
    }

    proptest! {
        #[test]
        fn events_that_agree_give_one_connection_in_every_order((events, shuffled) in agreeing()) {
            let without_source = |connection: Option<Connection>| connection.map(|connection| Connection {
                start_source: connection.start_source.map(|_| Source::Agent),
                ..connection
            });
            let ((one, heard), (other, heard_too)) = (told(&events, NO_FLOOR), told(&shuffled, NO_FLOOR));
            prop_assert!(heard.iter().chain(&heard_too).all(|heard| *heard == Heard::Agreed), "{heard:?} {heard_too:?}");
            prop_assert_eq!(without_source(one), without_source(other));
        }

        #[test]
        fn a_replay_changes_nothing(events in proptest::collection::vec(any_event(), 1..6), again in 0..6_usize) {
            let again = again % events.len();
            let (Some(before), heard) = told(&events, NO_FLOOR) else { return Ok(()) };
            let mut after = before.clone();
            let heard_again = after.hear(&events[again], NO_FLOOR);
            prop_assert_eq!(&after, &before);
            // What agreed then may have been overtaken by nothing: the first word stands.
            if heard[again] == Heard::Agreed {
                prop_assert_eq!(heard_again, Heard::Agreed);
            }
        }

        #[test]
        fn what_is_recorded_stays(first in any_event(), later in proptest::collection::vec(any_event(), 1..8)) {
            let (mut connection, _) = Connection::begin(&first, NO_FLOOR).unwrap();
            for event in &later {
                let before = connection.clone();
                let heard = connection.hear(event, NO_FLOOR);
                let stays = |was: bool, is: bool| !was || is;
                prop_assert!(stays(before.ip.is_some(), before.ip == connection.ip));
                prop_assert!(stays(before.method.is_some(), before.method == connection.method));
                prop_assert!(stays(before.app_name.is_some(), before.app_name == connection.app_name));
                prop_assert!(stays(before.user_id.is_some(), before.user_id == connection.user_id));
                prop_assert!(stays(before.start_source.is_some(), before.connect_time == connection.connect_time));
                prop_assert!(stays(before.end.is_some(), connection.end.as_ref().map(End::time) == before.end.as_ref().map(End::time)));
                prop_assert!(connection.end.as_ref().is_none_or(|end| end.time() >= connection.connect_time));
                if event.source == Source::Reporter && event.client.user_id.is_some() {
                    prop_assert!(connection.user_id.is_some(), "a user whom a reporter names is there whatever else differs");
                }
                if heard == Heard::Agreed {
                    prop_assert!(event.client.ip.is_none_or(|ip| connection.ip == Some(ip)));
                    prop_assert!(event.client.method.is_none_or(|method| connection.method == Some(method)));
                }
            }
        }
    }

    #[test]
    fn a_real_end_takes_the_place_of_an_inferred_one_and_of_nothing_else() {
        let client = Client::default();
        let connect = event(Source::Agent, 1, client.clone(), Action::Connect);
        let end = |time, code| {
            let outcome = Outcome { code: Some(code), ..Outcome::default() };
            event(Source::Agent, time, client.clone(), Action::Disconnect { connected_at: None, outcome })
        };
        let (mut connection, _) = Connection::begin(&connect, NO_FLOOR).unwrap();
        connection.end = Some(End::Inferred { time: at(5), reason: REASON_AGENT_LOST.to_owned() });
        assert_eq!(connection.hear(&end(3, 0), NO_FLOOR), Heard::Agreed);
        assert_eq!(connection.end.as_ref().map(End::time), Some(at(3)));
        assert_eq!(connection.hear(&end(4, 1), NO_FLOOR), Heard::Contradicted(vec!["disconnect_time", "code"]));
        assert_eq!(connection.end.as_ref().map(End::time), Some(at(3)));
    }

    #[test]
    fn beginnings_of_two_sources_agree_within_five_seconds_and_of_one_source_never() {
        let client = Client::default();
        for (source, time, agrees) in [
            (Source::Reporter, 15, true),
            (Source::Reporter, 16, false),
            (Source::Agent, 10, true),
            (Source::Agent, 11, false),
        ] {
            let first = event(Source::Agent, 10, client.clone(), Action::Connect);
            let (mut connection, _) = Connection::begin(&first, NO_FLOOR).unwrap();
            let heard = connection.hear(&event(source, time, client.clone(), Action::Connect), NO_FLOOR);
            assert_eq!(heard == Heard::Agreed, agrees, "{source:?} {time}");
            assert_eq!(connection.connect_time, at(10));
        }
    }

    #[test]
    fn below_the_floor_nothing_begins_and_what_is_open_can_end() {
        let client = Client::default();
        let connect = event(Source::Agent, 1, client.clone(), Action::Connect);
        assert_eq!(Connection::begin(&connect, at(2)), None);
        let (mut connection, _) = Connection::begin(&connect, NO_FLOOR).unwrap();
        let action = Action::Disconnect { connected_at: Some(at(1)), outcome: Outcome::default() };
        assert_eq!(connection.hear(&event(Source::Agent, 3, client, action), at(2)), Heard::Agreed);
        assert_eq!(connection.end.as_ref().map(End::time), Some(at(3)));
    }

    #[test]
    fn an_end_whose_beginning_lies_below_the_floor_is_the_end_the_second_time_too() {
        let client = Client::default();
        let connect = AgentEvent { time_is_receipt: true, ..event(Source::Agent, 3, client.clone(), Action::Connect) };
        let action = Action::Disconnect { connected_at: Some(at(1)), outcome: Outcome::default() };
        let end = event(Source::Agent, 4, client, action);
        let (mut connection, _) = Connection::begin(&connect, at(2)).unwrap();
        connection.end = Some(End::Inferred { time: at(5), reason: REASON_AGENT_LOST.to_owned() });
        for _ in 0..2 {
            assert_eq!(connection.hear(&end, at(2)), Heard::Agreed);
            assert!(matches!(connection.end, Some(End::Real { time, .. }) if time == at(4)));
            assert_eq!((connection.connect_time, connection.start_source), (at(3), None));
        }
    }
}
