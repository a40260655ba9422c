//! Reads of the log: pages, newest first, and how many entries there are.
//!
//! A page and its count are one REPEATABLE READ READ ONLY snapshot. The log is read in windows of a few days, newest
//! first, so that a page costs the same whether there is a month of it or ten years.

mod broad;
mod conditions;
mod contradictions;
mod entry;
mod export;
mod feed;
mod filter;
mod fresh;
mod gaps;
mod indexed;
mod names;
mod one;
mod page;
mod rows;
mod scanned;
mod sessions;
mod silent;
mod stats;
mod whose;
mod windows;

pub use contradictions::Contradiction;
pub use entry::{DirectoryUser, Entry, Organization};
pub use export::Chunk;
pub use feed::{Changes, Consumer, NoChanges};
pub use filter::{Filter, Reach, Unreachable};
pub use gaps::{Gap, GapKind, Gaps, GapsBetween};
pub use names::{NameOf, Named};
use page::Budget;
pub use page::{Count, Page, PageRequest};
pub use sessions::{Sessions, SessionsRequest};
pub use silent::SilentAgent;
pub use stats::{Bucket, Stats, StatsRequest, Top};
