//! What the server concludes by itself: ends of connections whose agent is gone, and their reopening when it returns.
//!
//! It is all done under the lock of the agent, and written as a batch is (`write::save`): what is inferred is a change of a
//! row like any other.

mod boots;
mod hello;
mod life;
mod open;
mod sweep;

pub use boots::{Boot, Unlisted};
pub use hello::{Greeting, Hello};
pub use life::{Life, SignOfLife};

/// The shard of counts in which inferred ends and reopenings are counted.
const SHARD: i16 = 0;
