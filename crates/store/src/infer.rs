//! What the server concludes by itself: ends of connections whose agent is gone, and their reopening when it returns.
//!
//! The order of locks is the same everywhere: presence, then keys in the order of their ids, then history, then counts.

mod close;
mod hello;
mod life;
mod sweep;

pub use hello::{Boot, Greeting, Hello};
pub use life::{Life, SignOfLife};
pub use sweep::SweepOutcome;

/// The shard of counts in which inferred ends and reopenings are counted.
const SHARD: i16 = 0;
