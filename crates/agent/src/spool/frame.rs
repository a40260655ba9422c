//! The frame of a record: `magic (4) | length (4) | number (8) | CRC32C (4) | payload`, integers little-endian.
//!
//! The checksum covers length, number and payload. After damage the next record is found by its magic: a false find would
//! need a matching checksum as well.

/// Begins every frame.
const MAGIC: [u8; 4] = [0xC0, 0x4C, 0x06, 0x5E];
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 20;

/// A record at an offset of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Where its frame begins.
    pub offset: usize,
    /// Its number.
    pub seq: u64,
    /// Bytes of its payload.
    pub len: usize,
}

/// Appends a frame.
pub fn write(bytes: &mut Vec<u8>, seq: u64, payload: &[u8]) {
    let len = u32::try_from(payload.len()).expect("a payload is bounded").to_le_bytes();
    let seq = seq.to_le_bytes();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&len);
    bytes.extend_from_slice(&seq);
    bytes.extend_from_slice(&checksum(len, seq, payload).to_le_bytes());
    bytes.extend_from_slice(payload);
}

/// The first record of `bytes`, if one begins there.
pub fn first(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let found = at(bytes, 0)?;
    Some((found.seq, &bytes[HEADER_BYTES..HEADER_BYTES + found.len]))
}

/// All intact records of `bytes`, in order, and where the last of them ends.
pub fn scan(bytes: &[u8]) -> (Vec<Found>, usize) {
    let (mut found, mut offset, mut end) = (Vec::<Found>::new(), 0, 0);
    while offset + HEADER_BYTES <= bytes.len() {
        match at(bytes, offset) {
            Some(record) if found.last().is_none_or(|last| record.seq > last.seq) => {
                offset += HEADER_BYTES + record.len;
                end = offset;
                found.push(record);
            }
            _ => offset += 1,
        }
    }
    (found, end)
}

/// The record whose frame begins at `offset`, if it is intact.
pub fn at(bytes: &[u8], offset: usize) -> Option<Found> {
    let header: &[u8; HEADER_BYTES] = bytes.get(offset..offset + HEADER_BYTES)?.try_into().ok()?;
    if header[..4] != MAGIC {
        return None;
    }
    let (len, seq) = (header[4..8].try_into().ok()?, header[8..16].try_into().ok()?);
    let payload_len = usize::try_from(u32::from_le_bytes(len)).ok()?;
    let begin = offset + HEADER_BYTES;
    let payload = bytes.get(begin..begin.checked_add(payload_len)?)?;
    let intact = checksum(len, seq, payload) == u32::from_le_bytes(header[16..20].try_into().ok()?);
    intact.then(|| Found { offset, seq: u64::from_le_bytes(seq), len: payload_len })
}

fn checksum(len: [u8; 4], seq: [u8; 8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&len), &seq), payload)
}
