//! Sessions that were open in a span of time, whenever they began: what pictures of sessions show.

use std::time::Duration;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_model::search::{Search, Status};

use super::Budget;
use super::entry::Entry;
use super::filter::{self, Filter, Reach, Unreachable};
use super::rows::Slice;
use super::windows::Calendar;
use super::{scanned, whose};
use crate::session::begin_read;
use crate::{Store, StoreError};

/// How long before the span a session may have begun, if it has ended; one that is open is found however old it is. As far back as
/// a disconnect that does not say when it began is looked up.
const LOOK_BACK: TimeDelta = TimeDelta::days(45);

/// Which sessions, and how much they may cost.
#[derive(Debug, Clone, Copy)]
pub struct SessionsRequest {
    /// The first instant of the span.
    pub from: Timestamp,
    /// The instant after the last.
    pub to: Timestamp,
    /// Most sessions.
    pub limit: i64,
    /// How long looking for them may take.
    pub budget: Duration,
    /// What "now" is to the duration of an open connection.
    pub now: Timestamp,
}

/// Sessions, the last to begin first.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    /// The sessions.
    pub entries: Vec<Entry>,
    /// Whether these are all.
    pub complete: bool,
}

impl Store {
    /// The sessions that match `search`, whatever times it asks for, lie in `reach`, and were open in the span.
    pub async fn sessions(
        &self,
        search: &Search,
        reach: &Reach,
        request: SessionsRequest,
    ) -> Result<Result<Sessions, Unreachable>, StoreError> {
        let search = Search { connected_after: None, connected_before: None, ..search.clone() };
        let mut client = self.client().await?;
        let transaction = begin_read(&mut client).await?;
        let mut filter = match Filter::resolve(&transaction, &search, reach, request.now).await? {
            Ok(filter) => filter,
            Err(unreachable) => return Ok(Err(unreachable)),
        };
        if filter.matches_nothing() {
            return Ok(Ok(Sessions { entries: Vec::new(), complete: true }));
        }
        filter.open_at = Some(request.from);
        filter.connected_after = request.from.checked_sub_signed(LOOK_BACK);
        filter.connected_before = Some(request.to);
        let whole = Calendar::of(&transaction).await?.window(&filter);
        let slice = Slice { limit: request.limit, offset: 0, after: None };
        let found = scanned::read(&transaction, &filter, whole, slice, Budget::new(request.budget)).await?;
        let is_full = i64::try_from(found.rows.len()).is_ok_and(|count| count >= request.limit);
        // Those that are open and began before all that.
        let mut rows = found.rows;
        if !is_full && let Some(before) = filter.connected_after {
            filter.connected_after = None;
            filter.connected_before = before.checked_sub_signed(TimeDelta::microseconds(1));
            filter.status = Some(Status::Ongoing);
            filter.closed_before = Some(filter::closed_before(&transaction).await?);
            let whole = Calendar::of(&transaction).await?.window(&filter);
            let slice = Slice { limit: request.limit - i64::try_from(rows.len()).unwrap_or(0), offset: 0, after: None };
            rows.extend(scanned::read(&transaction, &filter, whole, slice, Budget::new(request.budget)).await?.rows);
        }
        let entries = whose::entries(&transaction, &rows).await?;
        transaction.end();
        let is_full = i64::try_from(entries.len()).is_ok_and(|count| count >= request.limit);
        Ok(Ok(Sessions { entries, complete: !found.incomplete && !is_full }))
    }
}
