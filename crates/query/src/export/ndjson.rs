//! NDJSON: the entries of the list, each with its cursor, and `{"export": …}` at the end.

use connlog_store::read::Entry;
use serde_json::json;

use super::format::Summary;
use crate::dto::ConnectionLog;
use crate::json_text::write_line;

pub(super) fn write(entry: Entry, cursor: &str, bytes: &mut Vec<u8>) {
    write_line(&ConnectionLog::from(entry), bytes);
    // Into the object that was just written; a cursor needs no escape.
    bytes.pop();
    bytes.extend_from_slice(b",\"cursor\":\"");
    bytes.extend_from_slice(cursor.as_bytes());
    bytes.extend_from_slice(b"\"}\n");
}

pub(super) fn finish(summary: &Summary, bytes: &mut Vec<u8>) {
    write_line(&json!({ "export": summary }), bytes);
    bytes.push(b'\n');
}
