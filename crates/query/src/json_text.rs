//! JSON in streams of lines: what common readers take for the end of a line is escaped.
//!
//! JSON lets U+0085, U+2028 and U+2029 stand in a string as they are (RFC 8259, section 7). Readers that split lines by Unicode's rules
//! split there.

use serde::Serialize;

/// Each in UTF-8, and as an escape.
const LINE_ENDS: [(&str, &str); 3] = [("\u{85}", "\\u0085"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")];

/// A value on one line, without the end of the line.
pub(crate) fn one_line<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string(value).expect("writing plain data cannot fail");
    for (end, escape) in LINE_ENDS {
        if text.contains(end) {
            text = text.replace(end, escape);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_take_for_the_end_of_a_line_is_escaped_and_reads_as_it_was() {
        let text = "a\u{85}b\u{2028}c\u{2029}d\ne";
        let line = one_line(&text);
        assert_eq!(line, r#""a\u0085b\u2028c\u2029d\ne""#);
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
