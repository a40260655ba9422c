//! Messages that are not whole yet: all that a sender can make the service hold before it knows what they say.
//!
//! Bytes of a call are taken from the connection only while there is room for them, of its caller and in all; HTTP/2 flow control
//! does the rest. A message that does not become whole in time ends its call, and gives its room back.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::PollSemaphore;
use tonic::Status;
use uuid::Uuid;

/// Room is counted in units of so many bytes.
const UNIT_BYTES: usize = 1 << 10;
/// In front of each message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;
/// Callers whose room is remembered, and for how long after their last call.
const REMEMBERED: u64 = 100_000;
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

/// Limits of what is not whole.
#[derive(Debug, Clone, Copy)]
pub struct UndecodedLimits {
    /// Bytes in all.
    pub all: usize,
    /// Bytes of one caller.
    pub of_caller: usize,
    /// How long a message may take from its first byte to its last.
    pub deadline: Duration,
}

/// The room for messages that are not whole.
#[derive(Clone)]
pub struct Undecoded {
    limits: UndecodedLimits,
    all: Arc<Semaphore>,
    callers: Cache<Uuid, Arc<Semaphore>>,
}

impl Undecoded {
    /// Nothing is held.
    pub fn new(limits: UndecodedLimits) -> Self {
        metrics::counter!("connlog_ingest_undecoded_timeouts_total").increment(0);
        Self {
            limits,
            all: Arc::new(Semaphore::new(units(limits.all))),
            callers: Cache::builder().max_capacity(REMEMBERED).time_to_idle(REMEMBERED_FOR).build(),
        }
    }

    /// The body of a call of `caller`, which is given out only as far as there is room.
    pub fn meter<B>(&self, caller: Uuid, body: B) -> Metered<B> {
        let own = self.callers.get_with(caller, || Arc::new(Semaphore::new(units(self.limits.of_caller))));
        Metered {
            body,
            own: PollSemaphore::new(own),
            all: PollSemaphore::new(Arc::clone(&self.all)),
            most_units: units(self.limits.of_caller.min(self.limits.all)),
            deadline: self.limits.deadline,
            taken: None,
            own_room: None,
            held: Vec::new(),
            position: Position::default(),
            due: None,
        }
    }

    /// Bytes that are held, rounded up.
    pub fn bytes(&self) -> usize {
        self.limits.all.saturating_sub(self.all.available_permits() * UNIT_BYTES)
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS)
}

/// Where in a message the bytes so far end.
#[derive(Debug, Default, PartialEq, Eq)]
struct Position {
    prefix: [u8; PREFIX_BYTES],
    /// Of the prefix, bytes that are there.
    in_prefix: usize,
    /// Of the message, bytes that are missing, once the prefix is there.
    left: usize,
}

impl Position {
    /// Goes on by `bytes`, and returns how many of them belong to a message that is not whole.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        let mut since_boundary = 0;
        while !rest.is_empty() {
            if self.in_prefix < PREFIX_BYTES {
                let (missing, more) = rest.split_at(rest.len().min(PREFIX_BYTES - self.in_prefix));
                self.prefix[self.in_prefix..self.in_prefix + missing.len()].copy_from_slice(missing);
                (self.in_prefix, rest) = (self.in_prefix + missing.len(), more);
                since_boundary += missing.len();
                if self.in_prefix == PREFIX_BYTES {
                    let [_, length @ ..] = self.prefix;
                    self.left = u32::from_be_bytes(length).try_into().unwrap_or(usize::MAX);
                }
            } else {
                let of_message = rest.len().min(self.left);
                (self.left, rest) = (self.left - of_message, &rest[of_message..]);
                since_boundary += of_message;
            }
            if self.in_prefix == PREFIX_BYTES && self.left == 0 {
                (self.in_prefix, since_boundary) = (0, 0);
            }
        }
        since_boundary
    }

    fn is_at_boundary(&self) -> bool {
        self.in_prefix == 0
    }
}

/// A body that is given out only as far as there is room.
pub struct Metered<B> {
    body: B,
    own: PollSemaphore,
    all: PollSemaphore,
    most_units: usize,
    deadline: Duration,
    /// Bytes that came and wait for room.
    taken: Option<Bytes>,
    own_room: Option<OwnedSemaphorePermit>,
    /// The room of what was given out of a message that is not whole.
    held: Vec<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    position: Position,
    /// When the message has to be whole.
    due: Option<Pin<Box<Sleep>>>,
}

impl<B> Metered<B> {
    fn overdue(&mut self, context: &mut Context<'_>) -> Option<Status> {
        if self.due.as_mut()?.as_mut().poll(context).is_pending() {
            return None;
        }
        metrics::counter!("connlog_ingest_undecoded_timeouts_total").increment(1);
        self.held.clear();
        let seconds = self.deadline.as_secs();
        Some(Status::deadline_exceeded(format!("a message must be whole within {seconds} s of its first byte")))
    }

    /// Gives out `bytes`, whose room is taken.
    fn give(&mut self, bytes: Bytes, room: (OwnedSemaphorePermit, OwnedSemaphorePermit)) -> Frame<Bytes> {
        let was_at_boundary = self.position.is_at_boundary();
        let not_whole = self.position.pass(&bytes);
        if self.position.is_at_boundary() {
            self.due = None;
        } else if was_at_boundary || not_whole < bytes.len() {
            self.due = Some(Box::pin(tokio::time::sleep(self.deadline)));
        }
        // What came before in this message is whole by now, but for what is behind the last boundary.
        if self.position.is_at_boundary() || not_whole < bytes.len() {
            self.held.clear();
        }
        if not_whole > 0 {
            self.held.push(room);
        }
        Frame::data(bytes)
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Some(status) = this.overdue(context) {
            return Poll::Ready(Some(Err(status.into())));
        }
        if this.taken.is_none() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => this.taken = Some(bytes),
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
        let wanted = this.taken.as_ref().map_or(0, Bytes::len);
        let wanted = u32::try_from(units(wanted).min(this.most_units)).unwrap_or(u32::MAX);
        if this.own_room.is_none() {
            this.own_room = ready!(this.own.poll_acquire_many(context, wanted));
        }
        let all = ready!(this.all.poll_acquire_many(context, wanted));
        let (Some(bytes), Some(own), Some(all)) = (this.taken.take(), this.own_room.take(), all) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(this.give(bytes, (own, all)))))
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::StreamExt as _;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(bytes.len() + length as usize, 7);
        bytes
    }

    #[test]
    fn boundaries_are_found_wherever_bytes_are_cut() {
        let all = [message(0), message(3), message(300)].concat();
        for size in 1..all.len() {
            let mut position = Position::default();
            for part in all.chunks(size) {
                position.pass(part);
            }
            assert!(position.is_at_boundary(), "in parts of {size}");
        }
        let mut position = Position::default();
        assert_eq!(position.pass(&[message(3), message(9)[..7].to_vec()].concat()), 7);
        assert!(!position.is_at_boundary());
        assert_eq!(position.pass(&message(9)[7..10]), 3);
    }

    fn undecoded(deadline: Duration) -> Undecoded {
        Undecoded::new(UndecodedLimits { all: 8 << 10, of_caller: 4 << 10, deadline })
    }

    /// A body, and what gives it bytes.
    fn body(
        of: &Undecoded,
        caller: u128,
    ) -> (mpsc::UnboundedSender<Bytes>, impl Body<Data = Bytes, Error = tonic::codegen::StdError> + Unpin) {
        let (sender, bytes) = mpsc::unbounded_channel();
        let frames = UnboundedReceiverStream::new(bytes).map(|bytes| Ok::<_, Status>(Frame::data(bytes)));
        (sender, of.meter(Uuid::from_u128(caller), StreamBody::new(frames)))
    }

    #[tokio::test]
    async fn bytes_wait_for_room_which_whole_messages_give_back() {
        let undecoded = undecoded(Duration::from_mins(1));
        let (first, mut half) = body(&undecoded, 1);
        first.send(message(10_000)[..4096].to_vec().into()).unwrap();
        half.frame().await.unwrap().unwrap();
        assert_eq!(undecoded.bytes(), 4096);
        // The same caller has no room left, another one has.
        let (second, mut waiting) = body(&undecoded, 1);
        second.send(message(100).into()).unwrap();
        let mut waits = Box::pin(waiting.frame());
        assert!(futures::poll!(&mut waits).is_pending());
        let (third, mut other) = body(&undecoded, 2);
        third.send(message(100).into()).unwrap();
        other.frame().await.unwrap().unwrap();
        assert_eq!(undecoded.bytes(), 4096, "what is whole takes no room");
        drop(half);
        waits.await.unwrap().unwrap();
        assert_eq!(undecoded.bytes(), 0);
    }

    #[tokio::test]
    async fn a_message_that_does_not_become_whole_ends_its_call() {
        let undecoded = undecoded(Duration::from_millis(50));
        let (sender, mut half) = body(&undecoded, 1);
        sender.send(message(100)[..50].to_vec().into()).unwrap();
        half.frame().await.unwrap().unwrap();
        let error = half.frame().await.unwrap().unwrap_err();
        assert_eq!(error.downcast::<Status>().unwrap().code(), tonic::Code::DeadlineExceeded);
        assert_eq!(undecoded.bytes(), 0);
    }
}
