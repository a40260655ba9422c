//! Entries as people read them on a terminal.

use chrono::{DateTime, Local, TimeDelta, Utc};
use comfy_table::presets;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

/// The columns of a table.
const COLUMNS: [&str; 8] = ["TIME", "USER", "WORKSPACE", "AGENT", "TYPE", "FROM", "STATUS", "DURATION"];

/// A table of entries, as wide as the terminal.
pub(crate) fn table(entries: &[Value]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(COLUMNS);
    for entry in entries {
        table.add_row(cells(entry));
    }
    table.trim_fmt()
}

/// One entry as a line.
pub(crate) fn line(kind: &str, entry: &Value) -> String {
    let cells = cells(entry);
    format!("{}  {kind:<10}  {}", cells[0], cells[1..].join("  "))
}

fn cells(entry: &Value) -> [String; 8] {
    let text = |pointer: &str| printable(entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let user = match text("/web_info/user/username") {
        user if user.is_empty() => text("/session/user/username"),
        user => user,
    };
    let connected: Option<DateTime<Utc>> = text("/connect_time").parse().ok();
    let ended: Option<DateTime<Utc>> = text("/ssh_info/disconnect_time").parse().ok();
    let is_web = entry.get("web_info").is_some();
    let code = entry.pointer(if is_web { "/web_info/status_code" } else { "/ssh_info/exit_code" });
    let status = match (is_web, ended, entry["inferred"].as_bool()) {
        (true, ..) => code.map_or_else(String::new, Value::to_string),
        (false, None, _) => "ongoing".to_owned(),
        (false, Some(_), Some(true)) => format!("ended? {}", text("/ssh_info/disconnect_reason")),
        (false, Some(_), _) => format!("exit {}", code.map_or_else(|| "?".to_owned(), Value::to_string)),
    };
    let duration = match (is_web, connected) {
        (false, Some(connected)) => span(ended.unwrap_or_else(Utc::now) - connected),
        _ => String::new(),
    };
    let time =
        connected.map_or_else(String::new, |time| time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S").to_string());
    let workspace = format!("{}/{}", text("/workspace_owner_username"), text("/workspace_name"));
    [time, user, workspace, text("/agent_name"), text("/type_display_name"), text("/ip"), status, duration]
}

/// Without what would move the cursor or change the colours of a terminal, or turn the direction of a text.
fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

fn span(duration: TimeDelta) -> String {
    let (hours, minutes, seconds) = (duration.num_hours(), duration.num_minutes() % 60, duration.num_seconds() % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, _) => format!("{minutes} min {seconds} s"),
        (..48, _) => format!("{hours} h {minutes} min"),
        _ => format!("{} d {} h", hours / 24, hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        let entry = json!({ "workspace_name": "a\u{1b}[31m\u{202e}b", "web_info": { "status_code": 403 } });
        let line = line("web", &entry);
        assert!(!line.contains('\u{1b}') && !line.contains('\u{202e}') && line.contains("403"), "{line:?}");
    }

    #[test]
    fn spans_are_short() {
        for (seconds, expected) in [(5, "5 s"), (65, "1 min 5 s"), (7_265, "2 h 1 min"), (200_000, "2 d 7 h")] {
            assert_eq!(span(TimeDelta::seconds(seconds)), expected);
        }
    }
}
