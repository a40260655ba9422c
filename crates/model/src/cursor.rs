//! Cursors of pages and positions of the change feed: opaque texts that a client hands back.
//!
//! Both are base64url without padding of `version (2) | kind (1) | … | CRC32C (4)`, integers big-endian. They hold no
//! secret: whoever forges one sees nothing that a search would not show. The checksum catches what was cut or mistyped.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use uuid::Uuid;

use crate::clock::Timestamp;

const VERSION: u8 = 2;
const KIND_CURSOR: u8 = 1;
const KIND_POSITION: u8 = 2;
const CHECKSUM_BYTES: usize = 4;

/// Why a text is no cursor or position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursor {
    /// It was cut, mistyped, made by another version, or is the other of the two.
    #[error("it was not made by this API, or is damaged")]
    Unreadable,
    /// A position was given where a cursor belongs, or the other way round.
    #[error("a row's cursor of an export `since` a position goes back as `since`, any other as `after`")]
    OtherKind,
    /// It belongs to another search.
    #[error("it belongs to another search query")]
    OtherQuery,
}

/// A place in the order of pages, (`connect_time`, `id`) descending: what comes after it lies strictly below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The `connect_time` of the last entry that was given.
    pub time: Timestamp,
    /// Its id; nil means that everything from `time` on was given.
    pub id: Uuid,
    /// Of an export: where the change feed stood when it began.
    pub began_at: Option<Position>,
}

/// A place in the change feed: everything up to it has been seen. Positions of one database are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The transaction (`xid8`).
    pub transaction: u64,
    /// Names the change: a random id, so that a position from another database, or from before a restore, is noticed.
    pub anchor: Uuid,
    /// The row of the change that was seen last.
    pub row: Uuid,
}

impl Position {
    /// The place after all of a change.
    pub fn after(transaction: u64, anchor: Uuid) -> Self {
        Self { transaction, anchor, row: Uuid::max() }
    }

    /// The text of the position.
    pub fn encode(&self) -> String {
        seal(KIND_POSITION, &self.bytes())
    }

    /// Reads a text that [`encode`](Self::encode) made.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let payload = open(KIND_POSITION, text)?;
        let mut rest = payload.as_slice();
        Self::take(&mut rest).filter(|_| rest.is_empty()).ok_or(InvalidCursor::Unreadable)
    }

    fn bytes(&self) -> Vec<u8> {
        [&self.transaction.to_be_bytes()[..], self.anchor.as_bytes(), self.row.as_bytes()].concat()
    }

    fn take(rest: &mut &[u8]) -> Option<Self> {
        Some(Self {
            transaction: u64::from_be_bytes(take(rest)?),
            anchor: Uuid::from_bytes(take(rest)?),
            row: Uuid::from_bytes(take(rest)?),
        })
    }
}

impl Cursor {
    /// The text of the cursor, for the search whose fingerprint is `query`.
    pub fn encode(&self, query: u64) -> String {
        let mut payload =
            [&query.to_be_bytes()[..], &self.time.timestamp_micros().to_be_bytes(), self.id.as_bytes()].concat();
        payload.extend(self.began_at.iter().flat_map(Position::bytes));
        seal(KIND_CURSOR, &payload)
    }

    /// Reads a text that [`encode`](Self::encode) made for the same search.
    pub fn decode(text: &str, query: u64) -> Result<Self, InvalidCursor> {
        let payload = open(KIND_CURSOR, text)?;
        let mut rest = payload.as_slice();
        let (of_query, cursor) = Self::take(&mut rest).filter(|_| rest.is_empty()).ok_or(InvalidCursor::Unreadable)?;
        if of_query == query { Ok(cursor) } else { Err(InvalidCursor::OtherQuery) }
    }

    fn take(rest: &mut &[u8]) -> Option<(u64, Self)> {
        let query = u64::from_be_bytes(take(rest)?);
        let time = DateTime::from_timestamp_micros(i64::from_be_bytes(take(rest)?))?;
        let id = Uuid::from_bytes(take(rest)?);
        let began_at = if rest.is_empty() { None } else { Some(Position::take(rest)?) };
        Some((query, Self { time, id, began_at }))
    }
}

fn seal(kind: u8, payload: &[u8]) -> String {
    let mut bytes = vec![VERSION, kind];
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn open(kind: u8, text: &str) -> Result<Vec<u8>, InvalidCursor> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor::Unreadable)?;
    let (sealed, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(InvalidCursor::Unreadable)?;
    match sealed {
        [VERSION, found, payload @ ..] if crc32c::crc32c(sealed) == u32::from_be_bytes(*checksum) => {
            if *found == kind {
                Ok(payload.to_vec())
            } else {
                Err(InvalidCursor::OtherKind)
            }
        }
        _ => Err(InvalidCursor::Unreadable),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursor(began_at: Option<Position>) -> Cursor {
        let time = DateTime::from_timestamp_micros(1_763_900_000_123_456).unwrap();
        Cursor { time, id: Uuid::from_u128(7), began_at }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let position = Position { transaction: 812, anchor: Uuid::from_u128(8), row: Uuid::from_u128(9) };
        assert_eq!(Position::decode(&position.encode()), Ok(position));
        for began_at in [None, Some(position)] {
            let cursor = cursor(began_at);
            assert_eq!(Cursor::decode(&cursor.encode(5), 5), Ok(cursor));
            assert_eq!(Cursor::decode(&cursor.encode(5), 6), Err(InvalidCursor::OtherQuery));
        }
        assert_eq!(Cursor::decode(&position.encode(), 5), Err(InvalidCursor::OtherKind));
        assert_eq!(Position::decode(&cursor(None).encode(5)), Err(InvalidCursor::OtherKind));
    }

    #[test]
    fn any_change_of_a_character_is_noticed() {
        let text = cursor(None).encode(5);
        for index in 0..text.len() {
            for replacement in ['A', 'z', '-', '='] {
                let mut changed: Vec<char> = text.chars().collect();
                if changed[index] != replacement {
                    changed[index] = replacement;
                    let changed: String = changed.into_iter().collect();
                    assert_eq!(Cursor::decode(&changed, 5), Err(InvalidCursor::Unreadable), "{changed}");
                }
            }
            assert_eq!(Cursor::decode(&text[..index], 5), Err(InvalidCursor::Unreadable));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            prop_assert!(Cursor::decode(&text, 0).is_err());
            prop_assert!(Position::decode(&text).is_err());
        }
    }
}
