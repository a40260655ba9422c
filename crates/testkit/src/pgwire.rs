//! As much of PostgreSQL's wire protocol (version 3) as it takes to see where one request ends and the next begins.
//!
//! Source of the format: the PostgreSQL documentation, "Frontend/Backend Protocol".

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A message: its type byte, none for the first one of a client, and all of its bytes.
#[derive(Debug, Clone)]
pub struct Message {
    /// The type byte.
    pub kind: Option<u8>,
    /// The whole message, type byte and length included.
    pub bytes: Bytes,
}

impl Message {
    /// The SQL of a `Parse` message.
    pub fn parse_sql(&self) -> Option<String> {
        if self.kind != Some(b'P') {
            return None;
        }
        let mut body = self.bytes.slice(5..);
        take_string(&mut body)?;
        take_string(&mut body)
    }

    /// The SQL of a simple `Query` message.
    pub fn query_sql(&self) -> Option<String> {
        if self.kind != Some(b'Q') {
            return None;
        }
        take_string(&mut self.bytes.slice(5..))
    }

    /// The same message with `rewrite` applied to its SQL; messages without SQL are unchanged.
    #[must_use]
    pub fn rewritten(self, rewrite: &dyn Fn(&str) -> Option<String>) -> Self {
        let Some(sql) = self.parse_sql().or_else(|| self.query_sql()) else { return self };
        let (Some(kind), Some(sql)) = (self.kind, rewrite(&sql)) else { return self };
        let mut body = self.bytes.slice(5..);
        let mut content = BytesMut::new();
        if kind == b'P' {
            content.extend_from_slice(take_string(&mut body).unwrap_or_default().as_bytes());
            content.put_u8(0);
        }
        take_string(&mut body);
        content.extend_from_slice(sql.as_bytes());
        content.put_u8(0);
        content.extend_from_slice(&body);
        let mut bytes = BytesMut::with_capacity(content.len() + 5);
        bytes.put_u8(kind);
        bytes.put_u32(u32::try_from(content.len() + 4).expect("a statement is shorter than 4 GiB"));
        bytes.extend_from_slice(&content);
        Self { kind: Some(kind), bytes: bytes.freeze() }
    }
}

fn take_string(body: &mut Bytes) -> Option<String> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8(body.split_to(end).to_vec()).ok()?;
    body.advance(1);
    Some(text)
}

/// Reads one message; `None` when the peer has closed. The first message of a client has no type byte.
pub async fn read_message(reader: &mut (impl AsyncRead + Unpin), first: bool) -> std::io::Result<Option<Message>> {
    let mut bytes = BytesMut::new();
    let header = if first { 4 } else { 5 };
    bytes.resize(header, 0);
    match reader.read_exact(&mut bytes).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let kind = (!first).then(|| bytes[0]);
    let length = (&bytes[header - 4..header]).get_u32() as usize;
    bytes.resize(header + length.saturating_sub(4), 0);
    reader.read_exact(&mut bytes[header..]).await?;
    Ok(Some(Message { kind, bytes: bytes.freeze() }))
}
