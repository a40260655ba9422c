//! Rows of exports: whatever an entry has in it, a row is one row, and readers get back what was in it.

use std::net::IpAddr;

use arbitrary::{Result, Unstructured};
use chrono::{DateTime, Utc};
use connlog_model::method::Method;
use connlog_query::export::Format;
use connlog_store::read::{DirectoryUser, Entry, Organization};
use uuid::Uuid;

/// The bytes make an entry.
pub(crate) fn exports(data: &[u8]) {
    let Ok(entry) = entry(&mut Unstructured::new(data)) else { return };
    for format in [Format::Ndjson, Format::Ocsf] {
        let mut bytes = Vec::new();
        format.write_entry(entry.clone(), "cursor", &mut bytes);
        let text = str::from_utf8(&bytes).expect("an export is text");
        // Common readers end a line at any of these.
        let ends = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
        let line = text.strip_suffix('\n').expect("a row ends its line");
        assert!(!line.contains(ends), "{line:?}");
        let row: serde_json::Value = serde_json::from_str(line).expect("a row is JSON");
        assert!(row.is_object());
    }
    let mut bytes = Format::Csv.head().expect("CSV has a head").to_vec();
    Format::Csv.write_entry(entry, "cursor", &mut bytes);
    // A byte order mark leads, for spreadsheets.
    let text = str::from_utf8(&bytes).expect("an export is text").trim_start_matches('\u{feff}');
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<csv::StringRecord> =
        reader.records().collect::<Result<_, _>>().expect("rows are as long as the head");
    let [row] = rows.as_slice() else { panic!("{} rows of one entry", rows.len()) };
    for cell in row {
        let first = cell.chars().find(|c| !c.is_whitespace() && !c.is_control()).unwrap_or(' ');
        assert!(!"=+-@＝＋－＠".contains(first) || cell.parse::<f64>().is_ok(), "a spreadsheet runs {cell:?}");
    }
}

fn time(from: &mut Unstructured<'_>) -> Result<DateTime<Utc>> {
    // The log has times of the years 1970 to 9999.
    let seconds = from.int_in_range(0..=253_402_300_799_i64)?;
    Ok(DateTime::from_timestamp(seconds, from.int_in_range(0..=999_999_u32)? * 1000).unwrap_or_default())
}

fn id(from: &mut Unstructured<'_>) -> Result<Uuid> {
    Ok(Uuid::from_u128(from.arbitrary()?))
}

/// PostgreSQL has no NUL in texts.
fn text(from: &mut Unstructured<'_>) -> Result<String> {
    Ok(from.arbitrary::<String>()?.replace('\0', ""))
}

fn optional<T>(
    from: &mut Unstructured<'_>,
    value: impl FnOnce(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Option<T>> {
    if from.arbitrary()? { value(from).map(Some) } else { Ok(None) }
}

fn user(from: &mut Unstructured<'_>) -> Result<DirectoryUser> {
    Ok(DirectoryUser {
        id: id(from)?,
        username: text(from)?,
        name: text(from)?,
        email: text(from)?,
        avatar_url: text(from)?,
        created_at: time(from)?,
        updated_at: time(from)?,
        last_seen_at: time(from)?,
        status: text(from)?,
        login_type: text(from)?,
    })
}

fn entry(from: &mut Unstructured<'_>) -> Result<Entry> {
    let organization = Organization { id: id(from)?, name: text(from)?, display_name: text(from)?, icon: text(from)? };
    let method = *from.choose(&Method::ALL)?;
    Ok(Entry {
        id: id(from)?,
        connect_time: time(from)?,
        organization,
        workspace_owner_id: id(from)?,
        workspace_owner_username: text(from)?,
        workspace_id: id(from)?,
        workspace_name: text(from)?,
        agent_name: text(from)?,
        ip: from.arbitrary::<Option<IpAddr>>()?,
        client_ip: from.arbitrary::<Option<IpAddr>>()?,
        method,
        app_name: optional(from, text)?,
        connection_id: optional(from, id)?,
        user: optional(from, user)?,
        disconnect_time: optional(from, time)?,
        disconnect_reason: optional(from, text)?,
        disconnect_inferred: from.arbitrary()?,
        code: from.arbitrary()?,
        user_agent: text(from)?,
        slug_or_port: text(from)?,
        client_session_id: optional(from, id)?,
        rx_bytes: from.arbitrary::<Option<u32>>()?.map(i64::from),
        tx_bytes: from.arbitrary::<Option<u32>>()?.map(i64::from),
        received_at: time(from)?,
        ended_received_at: optional(from, time)?,
        contradictions: 0,
        position: None,
    })
}
