//! JSON in streams of lines: what common readers take for the end of a line is escaped.
//!
//! JSON lets U+0085, U+2028 and U+2029 stand in a string as they are (RFC 8259, section 7). Readers that split lines by Unicode's rules
//! split there.

use serde::Serialize;

/// Each in UTF-8, and as an escape.
const LINE_ENDS: [(&str, &str); 3] = [("\u{85}", "\\u0085"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")];
/// The first bytes of these.
const LEADS: (u8, u8) = (0xc2, 0xe2);

/// Appends a value on one line, without the end of the line.
pub(crate) fn write_line<T: Serialize>(value: &T, bytes: &mut Vec<u8>) {
    let from = bytes.len();
    serde_json::to_writer(&mut *bytes, value).expect("writing plain data cannot fail");
    // Few texts have one: looking for each of the three in all of them cost a quarter of an export.
    let written = bytes.get(from..).unwrap_or_default();
    if memchr::memchr2(LEADS.0, LEADS.1, written).is_none() {
        return;
    }
    let mut text = String::from_utf8_lossy(written).into_owned();
    for (end, escape) in LINE_ENDS {
        if text.contains(end) {
            text = text.replace(end, escape);
        }
    }
    bytes.truncate(from);
    bytes.extend_from_slice(text.as_bytes());
}

/// A value on one line, without the end of the line.
pub(crate) fn one_line<T: Serialize>(value: &T) -> String {
    let mut bytes = Vec::new();
    write_line(value, &mut bytes);
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_take_for_the_end_of_a_line_is_escaped_and_reads_as_it_was() {
        let text = "a\u{85}b\u{2028}c\u{2029}d\ne\u{e9}\u{2027}";
        let line = one_line(&text);
        assert_eq!(line, "\"a\\u0085b\\u2028c\\u2029d\\ne\u{e9}\u{2027}\"");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        for (end, _) in LINE_ENDS {
            assert!([LEADS.0, LEADS.1].contains(&end.as_bytes()[0]));
        }
        let mut bytes = "before\u{2028}".as_bytes().to_vec();
        write_line(&"a\u{2028}", &mut bytes);
        assert_eq!(bytes, "before\u{2028}\"a\\u2028\"".as_bytes(), "what was there before stays");
    }
}
