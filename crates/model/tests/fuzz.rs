//! Texts of callers, drawn at random: whatever they are, they are read or refused by name, and nothing panics.
//!
//! A case that ever failed is kept beside this file, in `fuzz.proptest-regressions`, and tried first.

use connlog_model::cursor::{Cursor, Position};
use connlog_model::retention::{Retention, parse_duration};
use connlog_model::search::{KEYS, Search};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use uuid::Uuid;

/// Words that mean something to the search, among words that mean nothing.
fn query() -> impl Strategy<Value = String> {
    let key = prop::sample::select(KEYS.into_iter().chain(["organisation", ""]).collect::<Vec<_>>());
    let value = prop_oneof![
        "\\PC{0,12}",
        Just("me".to_owned()),
        "[0-9]{1,4}[dhms]",
        "[0-9.]{1,15}(/[0-9]{1,3})?",
        "[0-9a-f:]{1,40}",
        "20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z",
        "(<|>|<=|>=|!=|=)?-?[0-9]{1,11}",
    ];
    let term = (key, prop::bool::ANY, value)
        .prop_map(|(key, quoted, value)| if quoted { format!("{key}:\"{value}\"") } else { format!("{key}:{value}") });
    prop_oneof![
        "\\PC{0,60}",
        any::<String>(),
        prop::collection::vec(prop_oneof![term, "\\PC{0,8}"], 0..5).prop_map(|terms| terms.join(" ")),
    ]
}

fn cases(number: u32) -> ProptestConfig {
    let beside_this_file = FileFailurePersistence::WithSource("proptest-regressions");
    ProptestConfig { cases: number, failure_persistence: Some(Box::new(beside_this_file)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn a_search_is_read_alike_each_time_or_says_what_is_wrong_with_which_field(query in query()) {
        match Search::parse(&query) {
            Ok(search) => {
                let again = Search::parse(&query).expect("it was read before");
                prop_assert_eq!(search.fingerprint(), again.fingerprint());
                prop_assert_eq!(search, again);
            }
            Err(invalid) => {
                prop_assert!(!invalid.is_empty());
                prop_assert!(invalid.iter().all(|it| !it.detail.is_empty() && !it.field.is_empty()), "{:?}", invalid);
            }
        }
    }

    #[test]
    fn a_duration_is_read_or_refused_with_its_text(text in prop_oneof!["[-+]?([0-9]{0,22}(\\.[0-9]{0,22})?(ns|us|µs|ms|s|m|h|d|w|y)?){0,4}", ".*"]) {
        match parse_duration(&text) {
            Ok(duration) => {
                let retention: Retention = text.parse().expect("it was read before");
                prop_assert_eq!(matches!(retention, Retention::For(_)), duration > chrono::TimeDelta::zero());
            }
            Err(error) => prop_assert!(error.to_string().contains("is not a duration"), "{}", error),
        }
    }

    #[test]
    fn only_what_was_made_here_is_a_cursor_or_a_position(text in prop_oneof!["[A-Za-z0-9_-]{0,120}", any::<String>()], fingerprint: u64) {
        prop_assert!(Cursor::decode(&text, fingerprint).is_err());
        prop_assert!(Position::decode(&text).is_err());
    }

    #[test]
    fn a_cursor_with_one_character_changed_is_none(anchor: u128, transaction: u64, at in 0_usize..60, to in "[A-Za-z0-9_-]") {
        let text = Position::after(transaction, Uuid::from_u128(anchor)).encode();
        let at = at % text.len();
        let mut changed = text.clone();
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(Position::decode(&changed).is_ok(), changed == text);
    }
}
