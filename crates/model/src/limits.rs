//! Limits on what one event may carry, and the one way of applying them.
//!
//! A string that is too long is cut at a character boundary, and NUL, which PostgreSQL cannot store, is removed: neither
//! is a reason to lose an event. The limits are listed in `proto/README.md`.

/// Longest disconnect reason, in bytes of UTF-8.
pub const MAX_REASON_BYTES: usize = 1024;
/// Longest user agent, in bytes of UTF-8.
pub const MAX_USER_AGENT_BYTES: usize = 1024;
/// Longest slug or port, in bytes of UTF-8.
pub const MAX_SLUG_OR_PORT_BYTES: usize = 255;
/// Longest name of an app, in characters.
pub const MAX_APP_NAME_CHARS: usize = 64;
/// Longest name of a workspace or an agent, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 255;

/// Removes NUL and cuts to `max_bytes` at a character boundary.
pub fn clean_text(text: &str, max_bytes: usize) -> String {
    let mut cleaned: String = text.chars().filter(|&c| c != '\0').collect();
    cleaned.truncate(cleaned.floor_char_boundary(max_bytes));
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_is_removed_and_characters_are_never_split() {
        assert_eq!(clean_text("a\0b", 10), "ab");
        assert_eq!(clean_text("aéé", 4), "aé");
        assert_eq!(clean_text("", 4), "");
    }
}
