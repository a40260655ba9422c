//! Searches for somebody or something that an index finds: an owner, a user, a workspace, a connection.

use std::collections::VecDeque;
use std::time::Instant;

use crate::session::Transaction;

use super::Budget;
use super::entry::Entry;
use super::filter::Filter;
use super::page::Count;
use super::rows::{self, Order, Place, Slice};
use super::windows::{Calendar, Window};
use crate::StoreError;

/// So many matches of a window are found and sorted; more are walked.
const FEW: i64 = 2000;
/// A window is counted so far: what one statement may cost.
const MOST_COUNTED: i64 = 20_000;

/// What is known of the windows of a search.
pub(super) struct Windows {
    calendar: Calendar,
    /// With how many matches each has, if that is known.
    parts: VecDeque<(Window, Option<i64>)>,
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
        let (mut windows, mut entries, mut exact) = (VecDeque::new(), 0_i64, true);
        let calendar = Calendar::of(transaction).await?;
        let parts = calendar.window(filter).map(Window::parts).unwrap_or_default();
        let (mut days, mut days_left) = (0, parts.iter().map(|part| part.days()).sum::<i64>());
        let began = Instant::now();
        for window in parts {
            // Past the cap, what cannot be finished is not begun.
            let expected = entries.saturating_mul(days_left) / days.max(1);
            let too_much = budget.is_used_up() || budget.affords(entries, began.elapsed()) < expected;
            exact = exact && !(entries > cap && too_much);
            (days, days_left) = (days + window.days(), days_left - window.days());
            if !exact {
                windows.push_back((window, None));
                continue;
            }
            // Up to the cap counting goes on, whatever it takes; past it, as far as the time that is left will do.
            let affordable = budget.affords(entries, began.elapsed());
            let limit = affordable.clamp(cap + 1 - entries.min(cap), MOST_COUNTED.max(cap + 1));
            let place = Place::Days(window, calendar.days(window));
            let matches = rows::count(transaction, filter, place, limit).await?;
            entries += matches;
            exact = matches < limit;
            // What was counted up to its limit is not known.
            windows.push_back((window, Some(matches).filter(|_| exact)));
        }
        let entries = if exact { entries } else { entries.min(cap + 1) };
        Ok(Self { calendar, parts: windows, count: Count { entries, exact } })
    }

    /// The slice, newest first.
    pub(super) async fn read(
        mut self,
        transaction: &Transaction<'_>,
        filter: &Filter,
        slice: Slice,
    ) -> Result<Vec<Entry>, StoreError> {
        let (mut entries, mut offset) = (Vec::new(), slice.offset);
        while let Some((window, matches)) = self.parts.pop_front() {
            let wanted = slice.limit - i64::try_from(entries.len()).unwrap_or(i64::MAX);
            if wanted <= 0 {
                break;
            }
            let rest = match slice.after {
                Some((time, _)) => window.until(time),
                None => Some(window),
            };
            let Some(rest) = rest else { continue };
            let place = Place::Days(window, self.calendar.days(window));
            let matches = match matches {
                Some(matches) => matches,
                None => rows::count(transaction, filter, place, FEW + 1).await?,
            };
            // Of a window that is whole, everything comes after.
            let part = Slice { limit: wanted, offset, after: slice.after.filter(|_| rest != window) };
            if matches <= FEW {
                if matches > offset {
                    entries.extend(rows::read(transaction, filter, place, part, Order::FindThenSort).await?);
                }
                offset = (offset - matches).max(0);
                continue;
            }
            let parts = window.parts();
            if parts.len() > 1 {
                // A few days of it may do.
                for part in parts.into_iter().rev() {
                    self.parts.push_front((part, None));
                }
                continue;
            }
            let rows = rows::read(transaction, filter, Place::Span(rest), part, Order::Walk).await?;
            if rows.is_empty() && offset > 0 {
                offset = (offset - rows::count(transaction, filter, place, offset).await?).max(0);
            } else if !rows.is_empty() {
                offset = 0;
            }
            entries.extend(rows);
        }
        Ok(entries)
    }
}
