//! What events said against what is recorded: kept beside it, once for each content.

use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::connection::Connection;
use connlog_model::event::{Action, AgentEvent, Source};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::row::column;
use crate::session::Step;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 16;

/// In the order of the keys, so that two writers cannot deadlock.
const INSERT: &str = "-- insert_contradictions
INSERT INTO contradictions (row_id, digest, organization_id, connect_time, received_at, source, fields, claim)
SELECT row_id, digest, organization_id, connect_time, received_at, source, fields, claim::jsonb
FROM unnest($1::uuid[], $2::bytea[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::smallint[], $7::text[], $8::text[])
    AS k (row_id, digest, organization_id, connect_time, received_at, source, fields, claim)
ORDER BY row_id, digest
ON CONFLICT (row_id, digest) DO NOTHING";

/// An event that contradicts what is recorded.
#[derive(Debug)]
pub(crate) struct Contradiction {
    row_id: Uuid,
    digest: Vec<u8>,
    organization_id: Uuid,
    connect_time: Timestamp,
    received_at: Timestamp,
    source: i16,
    fields: String,
    claim: String,
}

impl Contradiction {
    /// The contradiction of `event`, which differs in `fields` from what is recorded.
    pub(super) fn new(event: &AgentEvent, fields: &[&str], recorded: &Connection) -> Self {
        Self::of(recorded, event.source, &claim(event), fields, event.received_at)
    }

    /// The contradiction of a list of what is open that has a connection which really ended. It has no time: there is one of
    /// them for each connection.
    pub(crate) fn listed(recorded: &Connection, received_at: Timestamp) -> Self {
        Self::of(recorded, Source::Agent, &json!({ "action": "listed" }), &["disconnect_time"], received_at)
    }

    fn of(recorded: &Connection, source: Source, claim: &Value, fields: &[&str], received_at: Timestamp) -> Self {
        let (source, claim) = (source.code(), claim.to_string());
        let mut hash = Sha256::new();
        hash.update(source.to_be_bytes());
        hash.update(&claim);
        Self {
            row_id: recorded.id,
            digest: hash.finalize()[..DIGEST_BYTES].to_vec(),
            // Of the entry: whoever sees that sees what contradicts it.
            organization_id: recorded.agent.workspace.organization_id,
            connect_time: recorded.connect_time,
            received_at,
            source,
            fields: fields.join(","),
            claim,
        }
    }
}

/// An event in its own words. A time that is only that of receipt is left out: a replay says the same.
fn claim(event: &AgentEvent) -> Value {
    let mut claim = Map::new();
    let mut say = |key: &str, value: Option<Value>| {
        claim.extend(value.map(|value| (key.to_owned(), value)));
    };
    let client = &event.client;
    say("time", (!event.time_is_receipt).then(|| json!(rfc3339(event.time))));
    say("method", client.method.map(|method| json!(method.as_str())));
    say("app_name", client.app_name.as_ref().map(|name| json!(name)));
    say("ip", client.ip.map(|ip| json!(ip)));
    say("client_ip", client.client_ip.map(|ip| json!(ip)));
    say("client_session_id", client.session_id.map(|id| json!(id)));
    say("user_id", client.user_id.map(|id| json!(id)));
    match &event.action {
        Action::Connect => say("action", Some(json!("connect"))),
        Action::Disconnect { connected_at, outcome } => {
            say("action", Some(json!("disconnect")));
            say("connected_at", connected_at.map(|time| json!(rfc3339(time))));
            say("reason", (!outcome.reason.is_empty()).then(|| json!(outcome.reason)));
            say("code", outcome.code.map(|code| json!(code)));
            say("rx_bytes", outcome.rx_bytes.map(|bytes| json!(bytes)));
            say("tx_bytes", outcome.tx_bytes.map(|bytes| json!(bytes)));
        }
    }
    Value::Object(claim)
}

/// Contradictions, one array a column. Those that are there stay as they are.
pub(super) struct Columns<'a> {
    row_id: Vec<Uuid>,
    digest: Vec<&'a [u8]>,
    organization_id: Vec<Uuid>,
    connect_time: Vec<Timestamp>,
    received_at: Vec<Timestamp>,
    source: Vec<i16>,
    fields: Vec<&'a str>,
    claim: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(all: &'a [Contradiction]) -> Self {
        Self {
            row_id: column(all, |one| one.row_id),
            digest: column(all, |one| one.digest.as_slice()),
            organization_id: column(all, |one| one.organization_id),
            connect_time: column(all, |one| one.connect_time),
            received_at: column(all, |one| one.received_at),
            source: column(all, |one| one.source),
            fields: column(all, |one| one.fields.as_str()),
            claim: column(all, |one| one.claim.as_str()),
        }
    }

    /// The statement that stores them, if there are any.
    pub(super) fn step(&self) -> Option<Step<'_>> {
        let Self { row_id, digest, organization_id, connect_time, received_at, source, fields, claim } = self;
        (!row_id.is_empty()).then(|| {
            Step::Query(INSERT, vec![row_id, digest, organization_id, connect_time, received_at, source, fields, claim])
        })
    }
}
