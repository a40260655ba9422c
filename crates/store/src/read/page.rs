//! Pages of entries, in the total order (`connect_time`, `id`) descending.

use std::time::{Duration, Instant};

use connlog_model::clock::Timestamp;
use connlog_model::search::Search;
use uuid::Uuid;

use super::broad::DayCounts;
use super::entry::Entry;
use super::filter::{Filter, Reach, Shape, Unreachable};
use super::indexed::Windows;
use super::rows::Slice;
use super::windows::Calendar;
use super::{scanned, whose};
use crate::session::begin_read;
use crate::{Store, StoreError, retry};

/// Which page, and how much it may cost.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// Most entries.
    pub limit: i64,
    /// Entries to skip.
    pub offset: i64,
    /// Only what comes after this entry, in the order of pages.
    pub after: Option<(Timestamp, Uuid)>,
    /// Where counting stops, if it has to be done row by row and takes longer than its budget.
    pub count_cap: i64,
    /// How long counting row by row may take.
    pub count_budget: Duration,
    /// How long looking for entries row by row may take.
    pub scan_budget: Duration,
    /// What "now" is to the duration of an open connection.
    pub now: Timestamp,
}

impl PageRequest {
    /// The first page, at the costs that are usual.
    pub fn first(limit: i64, now: Timestamp) -> Self {
        Self {
            limit,
            offset: 0,
            after: None,
            count_cap: 2000,
            count_budget: Duration::from_millis(15),
            scan_budget: Duration::from_secs(1),
            now,
        }
    }
}

/// A number of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How many match; if not exact, so many at least.
    pub entries: i64,
    /// Whether that is all.
    pub exact: bool,
}

/// A page and its count, of one snapshot.
#[derive(Debug, Clone)]
pub struct Page {
    /// The entries, newest first.
    pub entries: Vec<Entry>,
    /// How many entries match in all.
    pub count: Count,
    /// After what the next page begins; none at the end.
    pub next: Option<(Timestamp, Uuid)>,
    /// Whether the page is short because its budget was used up.
    pub incomplete: bool,
}

/// So many rows say how fast rows are counted.
const SAYS_SOMETHING: i64 = 200;

/// How long something may go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget(Instant);

impl Budget {
    pub(super) fn new(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    pub(super) fn is_used_up(self) -> bool {
        Instant::now() >= self.0
    }

    /// How much more can be done in what is left, if `done` took `elapsed`; everything, if that says nothing.
    pub(super) fn affords(self, done: i64, elapsed: Duration) -> i64 {
        if done < SAYS_SOMETHING {
            return i64::MAX;
        }
        let left = self.0.saturating_duration_since(Instant::now()).as_micros();
        let more = u128::from(done.unsigned_abs()) * left / elapsed.as_micros().max(1);
        i64::try_from(more).unwrap_or(i64::MAX)
    }
}

impl Store {
    /// A page of the entries that match `search` and lie in `reach`.
    pub async fn page(
        &self,
        search: &Search,
        reach: &Reach,
        request: PageRequest,
    ) -> Result<Result<Page, Unreachable>, StoreError> {
        let mut attempt = 0;
        loop {
            match self.page_once(search, reach, request).await {
                // A day may be purged between looking it up and reading it.
                Err(error) => retry::pause(attempt, error).await?,
                found => return found,
            }
            attempt += 1;
        }
    }

    async fn page_once(
        &self,
        search: &Search,
        reach: &Reach,
        request: PageRequest,
    ) -> Result<Result<Page, Unreachable>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let filter = match Filter::resolve(&transaction, search, reach, request.now).await? {
            Ok(filter) => filter,
            Err(unreachable) => return Ok(Err(unreachable)),
        };
        let slice = Slice { limit: request.limit, offset: request.offset, after: request.after };
        let (mut stopped_at, mut incomplete) = (None, false);
        let (rows, count) = if filter.matches_nothing() {
            (Vec::new(), Count { entries: 0, exact: true })
        } else {
            match filter.shape() {
                Shape::Broad => {
                    let days = DayCounts::of(&transaction, &filter).await?;
                    let count = Count { entries: days.total(), exact: true };
                    (days.read(&transaction, &filter, slice).await?, count)
                }
                Shape::Indexed => {
                    let budget = Budget::new(request.count_budget);
                    let windows = Windows::count(&transaction, &filter, slice, request.count_cap, budget).await?;
                    let count = windows.count;
                    // An exact count says when there is nothing to look for.
                    let beyond = count.exact && count.entries <= request.offset;
                    let rows = if beyond { Vec::new() } else { windows.read(&transaction, slice).await? };
                    (rows, count)
                }
                Shape::Scanned => {
                    let budget = Budget::new(request.scan_budget);
                    let whole = Calendar::of(&transaction).await?.window(&filter);
                    let found = scanned::read(&transaction, &filter, whole, slice, budget).await?;
                    (stopped_at, incomplete) = (found.stopped_at, found.incomplete);
                    let given = i64::try_from(found.rows.len()).unwrap_or(i64::MAX);
                    // A page that looked at everything and is not full has counted, too.
                    let is_all = request.after.is_none() && request.offset == 0 && !incomplete && given < request.limit;
                    let mut count = Count { entries: given, exact: true };
                    if !is_all {
                        let budget = Budget::new(request.count_budget);
                        count = scanned::count(&transaction, &filter, whole, request.count_cap, budget).await?;
                        count.entries = count.entries.max(given);
                    }
                    (found.rows, count)
                }
            }
        };
        let entries = whose::entries(&transaction, &rows).await?;
        transaction.end();
        let full = i64::try_from(entries.len()).is_ok_and(|found| found >= request.limit);
        let last = entries.last().filter(|_| full).map(|last| (last.connect_time, last.id));
        Ok(Ok(Page { entries, count, next: stopped_at.or(last), incomplete }))
    }

    /// What of `search` is out of `reach`, for a caller who will not run it.
    pub async fn unreachable(&self, search: &Search, reach: &Reach) -> Result<Option<Unreachable>, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        Ok(Filter::resolve(&transaction, search, reach, Timestamp::UNIX_EPOCH).await?.err())
    }
}
