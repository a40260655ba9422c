//! Searches for somebody or something that an index finds: an owner, a user, a workspace, a connection.

use std::collections::VecDeque;
use std::time::Instant;

use deadpool_postgres::Transaction;

use super::Budget;
use super::entry::Entry;
use super::filter::Filter;
use super::page::Count;
use super::rows::{self, Order, Slice};
use super::windows::Window;
use crate::StoreError;

/// So many matches of a window are found and sorted; more are walked.
const FEW: i64 = 2000;
/// A window is counted so far: what one statement may cost.
const MOST_COUNTED: i64 = 5_000;

/// What is known of the windows of a search.
pub(super) struct Windows {
    /// With how many matches each has, if that is known.
    windows: VecDeque<(Window, Option<i64>)>,
    /// How many match in all.
    pub(super) count: Count,
}

impl Windows {
    /// Counts window by window, as long as `budget` lasts.
    pub(super) async fn count(
        transaction: &Transaction<'_>,
        filter: &Filter,
        cap: i64,
        budget: Budget,
    ) -> Result<Self, StoreError> {
        let (mut windows, mut entries, mut exact) = (VecDeque::new(), 0, true);
        let began = Instant::now();
        for window in Window::over(transaction, filter).await?.map(Window::parts).unwrap_or_default() {
            exact = exact && !(entries > cap && budget.is_used_up());
            if !exact {
                windows.push_back((window, None));
                continue;
            }
            // Up to the cap counting goes on, whatever it takes; past it, as far as the time that is left will do.
            let affordable = budget.affords(entries, began.elapsed());
            let limit = affordable.clamp(cap + 1 - entries.min(cap), MOST_COUNTED.max(cap + 1));
            let matches = rows::count(transaction, filter, window, limit).await?;
            entries += matches;
            exact = matches < limit;
            // What was counted up to its limit is not known.
            windows.push_back((window, Some(matches).filter(|_| exact)));
        }
        let entries = if exact { entries } else { entries.min(cap + 1) };
        Ok(Self { windows, count: Count { entries, exact } })
    }

    /// The slice, newest first.
    pub(super) async fn read(
        mut self,
        transaction: &Transaction<'_>,
        filter: &Filter,
        slice: Slice,
    ) -> Result<Vec<Entry>, StoreError> {
        let (mut entries, mut offset) = (Vec::new(), slice.offset);
        while let Some((window, matches)) = self.windows.pop_front() {
            let wanted = slice.limit - i64::try_from(entries.len()).unwrap_or(i64::MAX);
            if wanted <= 0 {
                break;
            }
            let window = match slice.after {
                Some((time, _)) => window.until(time),
                None => Some(window),
            };
            let Some(window) = window else { continue };
            let matches = match matches {
                Some(matches) => matches,
                None => rows::count(transaction, filter, window, FEW + 1).await?,
            };
            let part = Slice { limit: wanted, offset, after: slice.after };
            if matches <= FEW {
                if matches > offset {
                    entries.extend(rows::read(transaction, filter, window, part, Order::FindThenSort).await?);
                }
                offset = (offset - matches).max(0);
                continue;
            }
            let parts = window.parts();
            if parts.len() > 1 {
                // A few days of it may do.
                for part in parts.into_iter().rev() {
                    self.windows.push_front((part, None));
                }
                continue;
            }
            let rows = rows::read(transaction, filter, window, part, Order::Walk).await?;
            if rows.is_empty() && offset > 0 {
                offset = (offset - rows::count(transaction, filter, window, offset).await?).max(0);
            } else if !rows.is_empty() {
                offset = 0;
            }
            entries.extend(rows);
        }
        Ok(entries)
    }
}
