//! Messages drawn at random, as bytes and as fields: each is accepted within the limits, or refused by the name of a field.
//!
//! A case that ever failed is kept beside this file, in `fuzz.proptest-regressions`, and tried first.

use chrono::{DateTime, TimeDelta, Utc};
use connlog_ingest::parse::{
    Source, Span, connection, from_coder, shrink_connection, shrink_reported, shrink_sequenced, web,
};
use connlog_model::event::{Action, AgentEvent, Source as Reported};
use connlog_model::limits::{MAX_APP_NAME_CHARS, MAX_REASON_BYTES, MAX_SLUG_OR_PORT_BYTES, MAX_USER_AGENT_BYTES};
use connlog_proto::{coder, v1};
use connlog_testkit::fixtures;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use prost::Message;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000, 0).expect("in range")
}

fn source() -> Source {
    Source { agent: fixtures::site(1, 1).agent, boot: None, reported: Reported::Agent, user_id: None }
}

fn span() -> Span {
    Span::new(now(), TimeDelta::days(400))
}

fn time() -> impl Strategy<Value = Option<prost_types::Timestamp>> {
    let near = (1_749_000_000..1_751_000_000_i64, 0..1_000_000_000_i32);
    let any = (any::<i64>(), any::<i32>());
    prop::option::of(
        prop_oneof![3 => near, 1 => any].prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
    )
}

fn id() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => prop::collection::vec(any::<u8>(), 16), 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

fn message() -> impl Strategy<Value = v1::Connection> {
    let texts =
        (prop_oneof!["\\PC{0,80}", any::<String>()], prop::option::of("(\\PC|\u{0}){0,2000}"), "[a-zA-Z_ -]{0,90}");
    (
        (id(), -1..4_i32, -1..7_i32, time(), time()),
        texts,
        (any::<Option<i32>>(), id(), any::<u64>(), any::<u64>(), prop_oneof!["\\PC{0,80}", any::<String>()]),
    )
        .prop_map(
            |(
                (id, action, kind, timestamp, connected_at),
                (ip, reason, app_name),
                (status_code, client_session_id, rx_bytes, tx_bytes, client_ip),
            )| {
                #[expect(deprecated, reason = "existing agents still send the type")]
                v1::Connection {
                    id,
                    action,
                    r#type: kind,
                    timestamp,
                    ip,
                    status_code,
                    reason,
                    app_name,
                    connected_at,
                    client_session_id,
                    rx_bytes,
                    tx_bytes,
                    client_ip,
                }
            },
        )
}

fn assert_in_limits(event: &AgentEvent) {
    let span = span();
    assert!((span.earliest..=now() + TimeDelta::hours(24)).contains(&event.time), "{event:?}");
    assert!(!event.connection_id.is_nil());
    let app = event.client.app_name.as_deref().unwrap_or_default();
    assert!(app.chars().count() <= MAX_APP_NAME_CHARS && !app.chars().any(char::is_control), "{app:?}");
    if let Action::Disconnect { outcome, .. } = &event.action {
        assert!(outcome.reason.len() <= MAX_REASON_BYTES && !outcome.reason.contains('\0'));
        assert!(outcome.rx_bytes.is_none_or(|bytes| bytes >= 0) && outcome.tx_bytes.is_none_or(|bytes| bytes >= 0));
    }
}

fn cases(number: u32) -> ProptestConfig {
    let beside_this_file = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { cases: number, failure_persistence: Some(Box::new(beside_this_file)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn any_bytes_are_a_message_or_not(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = v1::Connection::decode(&bytes[..]) && let Ok(event) = connection(&message, &source(), &span()) {
            assert_in_limits(&event);
        }
        if let Ok(message) = coder::Connection::decode(&bytes[..]) && let Ok(event) = connection(&from_coder(message), &source(), &span()) {
            assert_in_limits(&event);
        }
        if let Ok(mut message) = v1::SequencedEvent::decode(&bytes[..]) {
            shrink_sequenced(&mut message);
        }
        if let Ok(mut message) = v1::ReportedEvent::decode(&bytes[..]) {
            shrink_reported(&mut message);
        }
    }

    #[test]
    fn a_connection_is_accepted_within_the_limits_or_refused_by_name(message in message()) {
        match connection(&message, &source(), &span()) {
            Ok(event) => assert_in_limits(&event),
            Err(error) => prop_assert!(!error.field.is_empty() && !error.reason.is_empty()),
        }
        // What waits in memory, and what is kept of a dead letter, is small, and says the same.
        let mut small = message.clone();
        shrink_connection(&mut small);
        prop_assert!(small.encoded_len() < 6000, "{}", small.encoded_len());
        let before = connection(&message, &source(), &span());
        prop_assert_eq!(connection(&small, &source(), &span()).is_ok(), before.is_ok());
        if let (Ok(small), Ok(before)) = (connection(&small, &source(), &span()), before) {
            prop_assert_eq!(small, before);
        }
    }

    #[test]
    fn a_web_event_is_accepted_within_the_limits_or_refused_by_name(
        event_id in id(), kind in -1..6_i32, timestamp in time(), texts in ("\\PC{0,60}", "(\\PC|\u{0}){0,1500}", "\\PC{0,400}"),
        status_code: i32, connection_id in id(),
    ) {
        let (ip, user_agent, slug_or_port) = texts;
        let message = v1::WebConnection { event_id, r#type: kind, timestamp, ip, user_agent, slug_or_port, status_code, connection_id };
        match web(&message, &source(), &span()) {
            Ok(event) => {
                prop_assert!(event.user_agent.len() <= MAX_USER_AGENT_BYTES && !event.user_agent.contains('\0'));
                prop_assert!(event.slug_or_port.len() <= MAX_SLUG_OR_PORT_BYTES);
                prop_assert!(!event.event_id.is_nil() && event.time >= span().earliest);
            }
            Err(error) => prop_assert!(!error.field.is_empty() && !error.reason.is_empty()),
        }
    }
}
