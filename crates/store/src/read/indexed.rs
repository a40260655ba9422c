//! Searches for somebody or something that an index finds: an owner, a user, a workspace, a connection.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use chrono::NaiveDate;
use tokio_postgres::Row;

use super::filter::Filter;
use super::page::Count;
use super::rows::{self, Order, Place, Slice};
use super::windows::{Calendar, Window};
use super::{Budget, broad};
use crate::StoreError;
use crate::session::Transaction;

/// So many matches of a window are found and sorted; more are walked.
const FEW: i64 = 2000;
/// A window is counted so far: what one statement may cost.
const MOST_COUNTED: i64 = 20_000;

/// What is known of the windows of a search.
pub(super) struct Windows {
    /// The search, and the days that can have a match.
    filter: Filter,
    calendar: Calendar,
    /// The windows that are still to be read, with how many matches each has, if that is known.
    parts: VecDeque<(Window, Option<i64>)>,
    /// How many match in all.
    pub(super) count: Count,
    /// What was found of the page while counting, and how many matches are to be skipped before the rest.
    rows: Vec<Row>,
    offset: i64,
}

impl Windows {
    /// Counts window by window, as long as `budget` lasts, and reads `slice` as far as it lies in windows of few matches.
    pub(super) async fn count(
        transaction: &Transaction<'_>,
        filter: &Filter,
        slice: Slice,
        cap: i64,
        budget: Budget,
    ) -> Result<Self, StoreError> {
        let (mut parts, mut rows, mut offset) = (VecDeque::new(), Vec::new(), slice.offset);
        let (mut entries, mut exact) = (0_i64, true);
        let (mut filter, mut calendar) = (filter.clone(), Calendar::of(transaction).await?);
        if filter.has_kinds() {
            // How many rows of a kind a day has is counted already.
            let of_kind: HashMap<NaiveDate, i64> = broad::counted(transaction, &filter).await?.into_iter().collect();
            calendar.keep(|day| of_kind.get(&day).is_some_and(|entries| *entries > 0));
            filter.of_kind = Some(of_kind.values().sum());
        }
        let windows = calendar.window(&filter).map(Window::parts).unwrap_or_default();
        let (mut days, mut days_left) = (0, windows.iter().map(|part| part.days()).sum::<i64>());
        let began = Instant::now();
        for window in windows {
            // Past the cap, what cannot be finished is not begun.
            let expected = entries.saturating_mul(days_left) / days.max(1);
            let too_much = budget.is_used_up() || budget.affords(entries, began.elapsed()) < expected;
            exact = exact && !(entries > cap && too_much);
            (days, days_left) = (days + window.days(), days_left - window.days());
            if !exact {
                parts.push_back((window, None));
                continue;
            }
            let place = Place::Days(window, calendar.days(window));
            let wanted = slice.limit - i64::try_from(rows.len()).unwrap_or(i64::MAX);
            if wanted > 0 && parts.is_empty() {
                let part = Slice { limit: wanted, offset, after: slice.after };
                let (matches, of_window) = rows::count_and_read(transaction, &filter, place, FEW + 1, part).await?;
                if matches <= FEW {
                    entries += matches;
                    offset = (offset - matches).max(0);
                    rows.extend(of_window);
                    continue;
                }
            }
            // Up to the cap counting goes on, whatever it takes; past it, as far as the time that is left will do.
            let affordable = budget.affords(entries, began.elapsed());
            let limit = affordable.clamp(cap + 1 - entries.min(cap), MOST_COUNTED.max(cap + 1));
            let matches = rows::count(transaction, &filter, place, limit).await?;
            entries += matches;
            exact = matches < limit;
            // What was counted up to its limit is not known.
            parts.push_back((window, Some(matches).filter(|_| exact)));
        }
        let entries = if exact { entries } else { entries.min(cap + 1) };
        Ok(Self { filter, calendar, parts, count: Count { entries, exact }, rows, offset })
    }

    /// The slice, newest first.
    pub(super) async fn read(mut self, transaction: &Transaction<'_>, slice: Slice) -> Result<Vec<Row>, StoreError> {
        let (mut rows, mut offset) = (std::mem::take(&mut self.rows), self.offset);
        let filter = self.filter;
        while let Some((window, matches)) = self.parts.pop_front() {
            let wanted = slice.limit - i64::try_from(rows.len()).unwrap_or(i64::MAX);
            if wanted <= 0 {
                break;
            }
            let rest = match slice.after {
                Some((time, _)) => window.until(time),
                None => Some(window),
            };
            let Some(rest) = rest else { continue };
            let place = Place::Days(window, self.calendar.days(window));
            let part = Slice { limit: wanted, offset, after: slice.after };
            if matches.is_none_or(|matches| matches <= FEW) {
                let (matches, of_window) = rows::count_and_read(transaction, &filter, place, FEW + 1, part).await?;
                if matches <= FEW {
                    offset = (offset - matches).max(0);
                    rows.extend(of_window);
                    continue;
                }
            }
            let parts = window.parts();
            if parts.len() > 1 {
                // A few days of it may do.
                for part in parts.into_iter().rev() {
                    self.parts.push_front((part, None));
                }
                continue;
            }
            let of_window = rows::read(transaction, &filter, Place::Span(rest), part, Order::Walk).await?;
            if of_window.is_empty() && offset > 0 {
                offset = (offset - rows::count(transaction, &filter, place, offset).await?).max(0);
            } else if !of_window.is_empty() {
                offset = 0;
            }
            rows.extend(of_window);
        }
        Ok(rows)
    }
}
