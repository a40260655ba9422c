//! Quoting as clients of Coder's API and log tools know it.

use std::fmt::Write as _;

/// `text` as a double-quoted string with the escapes of Go's `%q`: what is not printable is escaped, and the result is one
/// line. Source: the documentation of Go's `strconv.Quote`.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c => push_visible(&mut quoted, c),
        }
    }
    quoted.push('"');
    quoted
}

/// `text` for a person to look at: what could hide in it, or turn its order around, is escaped; the rest is as it is.
pub fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    text.chars().for_each(|c| push_visible(&mut visible, c));
    visible
}

fn push_visible(text: &mut String, c: char) {
    let code = u32::from(c);
    let written = match c {
        '\u{7}' => write!(text, "\\a"),
        '\u{8}' => write!(text, "\\b"),
        '\u{b}' => write!(text, "\\v"),
        '\u{c}' => write!(text, "\\f"),
        '\n' => write!(text, "\\n"),
        '\r' => write!(text, "\\r"),
        '\t' => write!(text, "\\t"),
        c if c.is_ascii_control() => write!(text, "\\x{code:02x}"),
        c if is_printable(c) => write!(text, "{c}"),
        _ if code <= 0xffff => write!(text, "\\u{code:04x}"),
        _ => write!(text, "\\U{code:08x}"),
    };
    written.expect("writing to a string cannot fail");
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
