//! Quoting as clients of Coder's API and log tools know it.

use std::fmt::Write as _;

/// `text` as a double-quoted string with the escapes of Go's `%q`: what is not printable is escaped, and the result is one
/// line. Source: the documentation of Go's `strconv.Quote`.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        let code = u32::from(c);
        let written = match c {
            '"' => write!(quoted, "\\\""),
            '\\' => write!(quoted, "\\\\"),
            '\u{7}' => write!(quoted, "\\a"),
            '\u{8}' => write!(quoted, "\\b"),
            '\u{b}' => write!(quoted, "\\v"),
            '\u{c}' => write!(quoted, "\\f"),
            '\n' => write!(quoted, "\\n"),
            '\r' => write!(quoted, "\\r"),
            '\t' => write!(quoted, "\\t"),
            c if c.is_ascii_control() => write!(quoted, "\\x{code:02x}"),
            c if is_printable(c) => write!(quoted, "{c}"),
            _ if code <= 0xffff => write!(quoted, "\\u{code:04x}"),
            _ => write!(quoted, "\\U{code:08x}"),
        };
        written.expect("writing to a string cannot fail");
    }
    quoted.push('"');
    quoted
}

/// Letters, marks, numbers, punctuation, symbols and the ASCII space. Control, format, private-use and the other spaces are
/// not: they are what can hide in a line.
fn is_printable(c: char) -> bool {
    let is_format = matches!(
        u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
            | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0x110bd | 0x110cd | 0x13430..=0x1343f | 0x1bca0..=0x1bca3
            | 0x1d173..=0x1d17a | 0xe0001..=0xe007f
    );
    let is_private = matches!(u32::from(c), 0xe000..=0xf8ff | 0xf_0000..=0x10_ffff);
    c == ' ' || !(c.is_control() || c.is_whitespace() || is_format || is_private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_printable_is_escaped() {
        for (text, quoted) in [
            ("a b", r#""a b""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("\0\u{7}\n\u{7f}", r#""\x00\a\n\x7f""#),
            ("caf\u{e9} cafe\u{301}", "\"caf\u{e9} cafe\u{301}\""),
            ("\u{85}\u{a0}\u{200b}\u{2028}", r#""\u0085\u00a0\u200b\u2028""#),
            ("\u{202e}\u{e0001}", r#""\u202e\U000e0001""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }
}
