//! Frames of HTTP/2 that carry nothing, and cost time all the same: pings, settings, frames taken back. Their sender may send a few at
//! once, and then so many a second.
//!
//! Without this, connections that send nothing else keep a service from everybody else.

use std::time::{Duration, Instant};

/// Length of the head of a frame (RFC 9113, section 4.1): three bytes of length, one of type, one of flags, four of the stream.
const HEAD: usize = 9;

/// How many may come: the time that each stands for, and how much of it may be saved up.
#[derive(Debug, Clone, Copy)]
struct Rate {
    interval: Duration,
    saved: Duration,
}

/// Of somebody whom nobody recognizes: 50, and then ten a second.
const OF_STRANGERS: Rate = Rate { interval: Duration::from_millis(100), saved: Duration::from_secs(5) };
/// Of anybody else: 5000, and then as many a second. Some clients measure the line with a ping for each round trip.
const OF_OTHERS: Rate = Rate { interval: Duration::from_micros(200), saved: Duration::from_secs(1) };

/// Follows the frames of a connection.
#[derive(Debug)]
pub(crate) struct Frames {
    head: [u8; HEAD],
    /// Bytes of the head that have come.
    have: usize,
    /// Bytes of the frame that are still to come after its head.
    rest: usize,
    /// Up to when what came is paid for.
    paid_until: Instant,
    was_recognized: bool,
}

impl Frames {
    /// From the first frame on.
    pub(crate) fn new() -> Self {
        Self { head: [0; HEAD], have: 0, rest: 0, paid_until: Instant::now(), was_recognized: false }
    }

    /// Reads on. False once too many frames carried nothing.
    pub(crate) fn read(&mut self, mut bytes: &[u8], is_recognized: bool) -> bool {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                let [high, middle, low, kind, flags, ..] = self.head;
                self.have = 0;
                self.rest = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                if carries_nothing(kind, flags, self.rest, is_recognized) && !self.pay(is_recognized) {
                    return false;
                }
            }
        }
        true
    }

    fn pay(&mut self, is_recognized: bool) -> bool {
        let (now, rate) = (Instant::now(), if is_recognized { OF_OTHERS } else { OF_STRANGERS });
        if is_recognized && !self.was_recognized {
            // What a stranger owed is forgotten.
            (self.was_recognized, self.paid_until) = (true, now);
        }
        let paid_until = self.paid_until.max(now) + rate.interval;
        if paid_until.saturating_duration_since(now) > rate.saved {
            return false;
        }
        self.paid_until = paid_until;
        true
    }
}

/// By the types of RFC 9113, section 6. Who reads a long answer makes room for it again and again: that is only bounded for strangers,
/// who get no long answers.
fn carries_nothing(kind: u8, flags: u8, length: usize, is_recognized: bool) -> bool {
    const END_STREAM: u8 = 1;
    match kind {
        // DATA.
        0 => length == 0 && flags & END_STREAM == 0,
        // HEADERS and CONTINUATION, which have bounds of their own.
        1 | 9 => false,
        // WINDOW_UPDATE.
        8 => !is_recognized,
        // PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, and whatever is to come.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: [u8; 17] = *b"\0\0\x08\x06\0\0\0\0\0abcdefgh";

    #[test]
    fn a_stranger_sends_few_frames_that_carry_nothing_and_others_more() {
        for (is_recognized, most) in [(false, 50), (true, 5000)] {
            let mut frames = Frames::new();
            let count = (0..10_000).take_while(|_| frames.read(&PING, is_recognized)).count();
            // While they are read there is time for a few more.
            assert!((most..most + most / 2).contains(&count), "{count}");
        }
        // Whoever is recognized does not owe what they said as a stranger.
        let mut frames = Frames::new();
        assert!((0..45).all(|_| frames.read(&PING, false)) && (0..100).all(|_| frames.read(&PING, true)));
        // Wherever the bytes are cut.
        let mut frames = Frames::new();
        let all = PING.repeat(49);
        assert!(all.chunks(5).all(|chunk| frames.read(chunk, false)));
        assert!(!(0..20).all(|_| frames.read(&PING, false)));
    }

    #[test]
    fn what_carries_something_is_not_counted() {
        let frame = |kind: u8, flags: u8, length: u8| {
            [&[0, 0, length, kind, flags, 0, 0, 0, 1], vec![b'x'; usize::from(length)].as_slice()].concat()
        };
        for (frame, is_recognized, is_free) in [
            (frame(0, 0, 1), false, true),
            (frame(0, 1, 0), false, true),
            (frame(0, 0, 0), true, false),
            (frame(1, 4, 20), false, true),
            (frame(2, 0, 5), true, false),
            (frame(3, 0, 4), true, false),
            (frame(4, 1, 0), true, false),
            (frame(8, 0, 4), true, true),
            (frame(8, 0, 4), false, false),
            (frame(16, 0, 4), true, false),
        ] {
            let mut frames = Frames::new();
            assert_eq!((0..20_000).all(|_| frames.read(&frame, is_recognized)), is_free, "{frame:?}");
        }
    }
}
