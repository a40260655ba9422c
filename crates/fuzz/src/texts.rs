//! Texts and files: searches, cursors, spools, configuration.

use connlog_agent::spool::frame;
use connlog_model::cursor::{Cursor, Position};
use connlog_model::search::Search;

/// A search is read alike each time, or refused by the name of a field.
pub(crate) fn search(data: &[u8]) {
    let query = String::from_utf8_lossy(data);
    match Search::parse(&query) {
        Ok(search) => {
            assert_eq!(Search::parse(&query).as_ref(), Ok(&search));
            let _fingerprint = search.fingerprint();
        }
        Err(invalid) => {
            assert!(!invalid.is_empty() && invalid.iter().all(|one| !one.field.is_empty() && !one.detail.is_empty()));
        }
    }
}

/// A cursor or position that can be read is written as one that reads the same.
pub(crate) fn cursors(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(position) = Position::decode(&text) {
        assert_eq!(Position::decode(&position.encode()).ok(), Some(position));
    }
    if let Ok(cursor) = Cursor::decode(&text, 7) {
        assert_eq!(Cursor::decode(&cursor.encode(7), 7).ok(), Some(cursor));
    }
}

/// Records of a damaged file are intact, ascend, and do not overlap.
pub(crate) fn spool(data: &[u8]) {
    let (found, end) = frame::scan(data);
    assert!(end <= data.len());
    let mut again = Vec::new();
    for record in &found {
        let (seq, payload) = frame::first(&data[record.offset..]).expect("what was found is there");
        assert_eq!((seq, payload.len()), (record.seq, record.len));
        frame::write(&mut again, seq, payload);
    }
    for pair in found.windows(2) {
        assert!(pair[0].seq < pair[1].seq && pair[0].offset + pair[0].len < pair[1].offset, "{pair:?}");
    }
    assert_eq!(frame::scan(&again).0.len(), found.len());
    assert_eq!(frame::scan(&again).1, again.len());
}

/// A configuration is read, or refused.
pub(crate) fn configuration(data: &[u8]) {
    if let Err(error) = connlog_purge::config::check(&String::from_utf8_lossy(data)) {
        assert!(!error.is_empty());
    }
}
