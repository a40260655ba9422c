//! Reads of the log: pages, newest first, and how many entries there are.
//!
//! A page and its count are one REPEATABLE READ READ ONLY snapshot. History is read in windows of a few days, newest
//! first, so that a page costs the same whether there is a month of history or ten years.

mod conditions;
mod count;
mod entry;
mod filter;
mod gaps;
mod page;

pub use count::Count;
pub use entry::{DirectoryUser, Entry, Organization};
pub use filter::{Filter, Reach, Unreachable};
pub use gaps::{Gap, GapKind, Gaps};
pub use page::{Page, PageRequest};
