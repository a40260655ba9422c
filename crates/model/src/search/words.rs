//! A query as it is written, word by word: what a menu changes, and where an error belongs.

/// A word of a query, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word<'a> {
    /// The word.
    pub text: &'a str,
    /// Its key, in lower case; none if it has none.
    pub key: Option<String>,
    /// What follows the colon, without quotes; the word itself if it has no key.
    pub value: &'a str,
}

/// The words of `query`, in the order in which they are written. They are split as the search is, on spaces outside of double
/// quotes, but nothing is wrong with any of them.
pub fn of(query: &str) -> Vec<Word<'_>> {
    let (mut quoted, mut words, mut began) = (false, Vec::new(), None);
    for (at, c) in query.char_indices() {
        quoted ^= c == '"';
        if c != ' ' || quoted {
            began.get_or_insert(at);
        } else if let Some(began) = began.take() {
            words.push(word(&query[began..at]));
        }
    }
    words.extend(began.map(|began| word(&query[began..])));
    words
}

fn word(text: &str) -> Word<'_> {
    let mut quoted = false;
    let colon = text.find(|c| {
        quoted ^= c == '"';
        c == ':' && !quoted
    });
    match colon {
        Some(colon) => {
            let key = text[..colon].trim_matches('"').to_lowercase();
            Word { text, key: Some(key), value: text[colon + 1..].trim_matches('"') }
        }
        None => Word { text, key: None, value: text.trim_matches('"') },
    }
}

/// The value of the first word of `query` that has `key`.
pub fn value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    of(query).into_iter().find(|word| word.key.as_deref() == Some(key)).map(|word| word.value)
}

/// `query` with `value` for `key` in place of what it had, or without `key`. Other words stay as they are.
pub fn with(query: &str, key: &str, value: Option<&str>) -> String {
    let term = value.filter(|value| !value.is_empty()).map(|value| term(key, value));
    let mut term = term.as_deref();
    let mut words: Vec<&str> = Vec::new();
    for word in of(query) {
        if word.key.as_deref() == Some(key) {
            words.extend(term.take());
        } else {
            words.push(word.text);
        }
    }
    words.extend(term);
    words.join(" ")
}

/// A key and a value as one word, quoted if need be. A double quote cannot be written in a query; it is left out.
pub fn term(key: &str, value: &str) -> String {
    let value = value.replace('"', "");
    if value.is_empty() || value.contains([' ', ':']) { format!("{key}:\"{value}\"") } else { format!("{key}:{value}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::Search;

    #[test]
    fn a_value_is_put_in_the_place_of_the_one_before() {
        for (query, key, value, expected) in [
            ("", "type", Some("ssh"), "type:ssh"),
            ("type:ssh", "type", None, ""),
            ("a:b Type:ssh c:d", "type", Some("tunnel"), "a:b type:tunnel c:d"),
            ("type:ssh type:vscode", "type", Some("tunnel"), "type:tunnel"),
            (r#"reason:"a b" x"#, "type", Some("ssh"), r#"reason:"a b" x type:ssh"#),
            (r#"workspace:"a b""#, "workspace", Some("c d"), r#"workspace:"c d""#),
            ("", "connected_after", Some("2025-01-02T15:04:05Z"), r#"connected_after:"2025-01-02T15:04:05Z""#),
            ("", "workspace", Some(r#"a"b"#), "workspace:ab"),
            ("type:ssh", "app", Some(""), "type:ssh"),
        ] {
            assert_eq!(with(query, key, value), expected, "{query}");
        }
    }

    #[test]
    fn what_is_put_in_is_what_the_search_reads() {
        for value in ["plain", "with space", "2025-01-02T15:04:05Z", "fd7a::1", "ünïcode"] {
            let query = with("type:ssh", "reason", Some(value));
            assert_eq!(Search::parse(&query).unwrap().reason, Some(value.to_lowercase()), "{query}");
            assert_eq!(super::value(&query, "reason"), Some(value));
        }
    }

    #[test]
    fn a_quote_that_does_not_end_takes_the_rest() {
        let words = of(r#" a  reason:"b c "#);
        let texts: Vec<_> = words.iter().map(|word| word.text).collect();
        assert_eq!(texts, ["a", r#"reason:"b c "#]);
    }
}
