//! What events said against what is recorded: kept beside it, once for each content.

use connlog_model::clock::{Timestamp, rfc3339};
use connlog_model::connection::Connection;
use connlog_model::event::{Action, AgentEvent};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::StoreError;
use crate::session::{Transaction, execute};

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
pub(super) struct Contradiction {
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
        let claim = claim(event).to_string();
        let source = event.source.code();
        let mut hash = Sha256::new();
        hash.update(source.to_be_bytes());
        hash.update(&claim);
        Self {
            row_id: event.row_id(),
            digest: hash.finalize()[..DIGEST_BYTES].to_vec(),
            // Of the entry: whoever sees that sees what contradicts it.
            organization_id: recorded.agent.workspace.organization_id,
            connect_time: recorded.connect_time,
            received_at: event.received_at,
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

/// Stores contradictions; those that are there stay as they are.
pub(super) async fn insert(transaction: &Transaction<'_>, all: &[Contradiction]) -> Result<(), StoreError> {
    if all.is_empty() {
        return Ok(());
    }
    execute(
        transaction,
        INSERT,
        &[
            &column(all, |one| one.row_id),
            &column(all, |one| one.digest.as_slice()),
            &column(all, |one| one.organization_id),
            &column(all, |one| one.connect_time),
            &column(all, |one| one.received_at),
            &column(all, |one| one.source),
            &column(all, |one| one.fields.as_str()),
            &column(all, |one| one.claim.as_str()),
        ],
    )
    .await?;
    Ok(())
}

fn column<'a, T>(all: &'a [Contradiction], value: impl Fn(&'a Contradiction) -> T) -> Vec<T> {
    all.iter().map(value).collect()
}
