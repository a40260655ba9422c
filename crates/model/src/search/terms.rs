//! Splitting a query into keys and values, in the two passes that clients know: first on spaces, then on colons, neither
//! inside double quotes.

use super::Invalid;
use crate::quote::quote;

/// The key under which words without a key are kept.
const BARE_WORDS: &str = "search";

/// Splits `query`, lowercased, into pairs of key and value, in the order in which they are written.
pub(super) fn split(query: &str) -> Result<Vec<(String, String)>, Invalid> {
    let query = query.to_lowercase();
    let (mut elements, bare): (Vec<&str>, Vec<&str>) = fields(&query, ' ').partition(|token| token.contains(':'));
    let bare = bare.join(" ");
    if !bare.is_empty() {
        elements.push(&bare);
    }
    elements.into_iter().map(pair).collect()
}

fn pair(element: &str) -> Result<(String, String), Invalid> {
    let invalid =
        |rest: &str| Invalid { field: "q".to_owned(), detail: format!("Query element {} {rest}", quote(element)) };
    if element.starts_with(':') || element.ends_with(':') {
        return Err(invalid("cannot start or end with ':'"));
    }
    let parts: Vec<&str> = fields(element, ':').map(|part| part.trim_matches('"')).collect();
    match parts[..] {
        [_] => Ok((BARE_WORDS.to_owned(), element.to_owned())),
        [key, value] => Ok((key.to_owned(), value.to_owned())),
        _ => Err(invalid("can only contain 1 ':'")),
    }
}

/// The non-empty pieces of `text` between delimiters that are not inside double quotes.
fn fields(text: &str, delimiter: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        if c == '"' {
            quoted = !quoted;
        }
        !quoted && c == delimiter
    })
    .filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        split(query).unwrap()
    }

    #[test]
    fn spaces_and_colons_split_outside_quotes_only() {
        let expected = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        for (query, parts) in [
            ("", &[][..]),
            ("   ", &[]),
            ("type:ssh", &[("type", "ssh")]),
            ("Type:SSH  method:tunnel", &[("type", "ssh"), ("method", "tunnel")]),
            ("a::b", &[("a", "b")]),
            (r#"connected_after:"2025-01-02T15:04:05Z""#, &[("connected_after", "2025-01-02t15:04:05z")]),
            (r#""type":"ssh""#, &[("type", "ssh")]),
            (r#"key:"""#, &[("key", "")]),
            (r#"app:"a b""#, &[("app", "a b")]),
            ("foo type:ssh bar", &[("type", "ssh"), ("search", "foo bar")]),
            (r#""a:b""#, &[("search", r#""a:b""#)]),
        ] {
            assert_eq!(pairs(query), expected(parts), "{query}");
        }
    }

    #[test]
    fn an_element_that_cannot_be_split_is_named() {
        for (query, detail) in [
            ("x:", r#"Query element "x:" cannot start or end with ':'"#),
            (":x", r#"Query element ":x" cannot start or end with ':'"#),
            (":", r#"Query element ":" cannot start or end with ':'"#),
            ("a:b:c", r#"Query element "a:b:c" can only contain 1 ':'"#),
            (r#"a:"b:c":d"#, r#"Query element "a:\"b:c\":d" can only contain 1 ':'"#),
        ] {
            assert_eq!(split(query), Err(Invalid { field: "q".to_owned(), detail: detail.to_owned() }));
        }
    }
}
