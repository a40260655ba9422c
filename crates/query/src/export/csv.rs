//! CSV as RFC 4180 has it: CRLF, quotes doubled, the same columns in every record.
//!
//! The first column says what a record is: a `connection`, or the `export` itself, at the end. A text that a spreadsheet
//! would take for a formula is given with an apostrophe in front.

use connlog_model::clock::rfc3339;
use connlog_store::read::Entry;

use super::format::Summary;

/// The columns. They are stable: new ones come at the end.
pub(super) const COLUMNS: [&str; 33] = [
    "record",
    "id",
    "connect_time",
    "disconnect_time",
    "duration_seconds",
    "organization_id",
    "organization",
    "workspace_owner_id",
    "workspace_owner",
    "workspace_id",
    "workspace",
    "agent",
    "type",
    "method",
    "app",
    "ip",
    "user_id",
    "user",
    "status",
    "code",
    "disconnect_reason",
    "inferred",
    "user_agent",
    "slug_or_port",
    "connection_id",
    "client_session_id",
    "rx_bytes",
    "tx_bytes",
    "cursor",
    "rows",
    "complete",
    "position",
    "client_ip",
];

pub(super) fn head(bytes: &mut Vec<u8>) {
    record(&COLUMNS.map(str::to_owned), bytes);
}

pub(super) fn write(entry: &Entry, cursor: &str, bytes: &mut Vec<u8>) {
    let duration = entry.disconnect_time.map(|end| (end - entry.connect_time).as_seconds_f64().to_string());
    let status = match (entry.method.is_web(), entry.disconnect_time) {
        (true, _) => "",
        (false, Some(_)) => "completed",
        (false, None) => "ongoing",
    };
    let text = |value: &str| guarded(value);
    let optional = |value: Option<String>| value.unwrap_or_default();
    let user = entry.user.as_ref();
    record(
        &[
            "connection".to_owned(),
            entry.id.to_string(),
            rfc3339(entry.connect_time),
            optional(entry.disconnect_time.map(rfc3339)),
            optional(duration),
            entry.organization.id.to_string(),
            text(&entry.organization.name),
            entry.workspace_owner_id.to_string(),
            text(&entry.workspace_owner_username),
            entry.workspace_id.to_string(),
            text(&entry.workspace_name),
            text(&entry.agent_name),
            entry.connection_type().as_str().to_owned(),
            entry.method.as_str().to_owned(),
            text(entry.app_name.as_deref().unwrap_or_default()),
            optional(entry.ip.map(|ip| ip.to_string())),
            optional(user.map(|user| user.id.to_string())),
            text(user.map_or("", |user| user.username.as_str())),
            status.to_owned(),
            optional(entry.code.map(|code| code.to_string())),
            text(entry.disconnect_reason.as_deref().unwrap_or_default()),
            entry.disconnect_inferred.to_string(),
            text(&entry.user_agent),
            text(&entry.slug_or_port),
            optional(entry.connection_id.map(|id| id.to_string())),
            optional(entry.client_session_id.map(|id| id.to_string())),
            optional(entry.rx_bytes.map(|bytes| bytes.to_string())),
            optional(entry.tx_bytes.map(|bytes| bytes.to_string())),
            cursor.to_owned(),
            String::new(),
            String::new(),
            String::new(),
            optional(entry.client_ip.map(|ip| ip.to_string())),
        ],
        bytes,
    );
}

pub(super) fn finish(summary: &Summary, bytes: &mut Vec<u8>) {
    let mut fields = [const { String::new() }; COLUMNS.len()];
    "export".clone_into(&mut fields[0]);
    fields[20] = summary.error.as_deref().map(guarded).unwrap_or_default();
    fields[29] = summary.rows.to_string();
    fields[30] = summary.complete.to_string();
    fields[31].clone_from(&summary.position);
    record(&fields, bytes);
}

/// What a spreadsheet takes for a formula begins so, behind blanks and in full width, too:
/// <https://owasp.org/www-community/attacks/CSV_Injection>.
fn guarded(text: &str) -> String {
    const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
    let is_blank = |character: char| character.is_whitespace() || character.is_control() || character == '\u{feff}';
    let shown = text.trim_start_matches(is_blank);
    let begins_with_break = text.starts_with(['\t', '\r', '\n']);
    if shown.starts_with(FORMULA) || begins_with_break { format!("'{text}") } else { text.to_owned() }
}

fn record(fields: &[String; COLUMNS.len()], bytes: &mut Vec<u8>) {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(bytes);
    writer.write_record(fields).and_then(|()| Ok(writer.flush()?)).expect("writing to memory cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_guarded() {
        for text in [
            "=1",
            "+1",
            "-1",
            "@a",
            "\ta",
            "\ra",
            "\na",
            " =1",
            "\u{a0}=1",
            "\u{3000}@a",
            "\u{feff}=1",
            "＝1",
            "＋1",
            "－1",
            "＠a",
        ] {
            assert_eq!(guarded(text), format!("'{text}"), "{text:?}");
        }
        for text in ["a", "a=1", " a", "1-2", ""] {
            assert_eq!(guarded(text), text);
        }
    }
}
