//! `GET /api/v2/connectionlog/tail`: changes as server-sent events, as they are committed.
//!
//! Each event's id is a position of the change feed, so a client that comes back with `Last-Event-ID`, to this replica
//! or to another, misses nothing. Changes are read only as fast as the client reads them: a slow one is told how far it is
//! behind, and costs no memory. A connection that changed twice in between appears once, as it is now.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use connlog_model::clock::Timestamp;
use connlog_model::cursor::Position;
use connlog_model::search::Search;
use connlog_store::AuditRecord;
use connlog_store::read::{Entry, NoChanges, Reach};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::audit::{RecordsItself, UseOf};
use crate::auth::{Auditor, Bearer};
use crate::dashboard::{Zone, live_row};
use crate::dto::ConnectionLog;
use crate::error::ApiError;
use crate::give::give;
use crate::json_text::one_line;
use crate::list::parse_search;
use crate::paging;
use crate::serve::Service;
use crate::slot::{Share, Slot};

/// Changes that are read at a time.
const TOGETHER: usize = 200;
/// Without changes, the client is told where the feed is so often: it also shows that the line is alive.
const IDLE_INTERVAL: Duration = Duration::from_secs(15);
/// How often the feed is looked at while nothing tells of changes.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How often the token is looked at again.
const TOKEN_INTERVAL: Duration = Duration::from_secs(5);
/// Events that wait for the client to read them.
const WAITING_EVENTS: usize = 8;
/// Pause after a failed look.
const PAUSE: Duration = Duration::from_secs(1);

/// Streams changes.
#[utoipa::path(
    get,
    path = "/api/v2/connectionlog/tail",
    params(
        ("q" = Option<String>, Query, description = "Search"),
        ("since" = Option<String>, Query, description = "Begins after this position, of an export or an earlier tail; now, by default"),
        ("Last-Event-ID" = Option<String>, Header, description = "The same, as a browser's EventSource sends it; comes before `since`"),
    ),
    responses(
        (status = 200, description = "Events `ready`, `connect`, `disconnect`, `inferred`, `web`, `position`, `lag`, `end`", body = String, content_type = "text/event-stream"),
    )
)]
pub async fn tail(
    State(service): State<Service>,
    auditor: Auditor,
    Extension(request_use): Extension<UseOf>,
    headers: HeaderMap,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    follow(service, auditor, request_use, headers, parameters, As::Entries).await
}

/// What changes are given as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum As {
    /// Entries, as in the rest of the API.
    Entries,
    /// Rows of a page, in a time zone.
    Rows(Zone),
}

/// Follows the log.
pub(crate) async fn follow(
    service: Service,
    auditor: Auditor,
    request_use: UseOf,
    headers: HeaderMap,
    parameters: Vec<(String, String)>,
    form: As,
) -> Result<Response, ApiError> {
    let search = parse_search(&service, &auditor, &parameters).await?;
    let since = match headers.get("last-event-id") {
        Some(id) => {
            let id = id.to_str().unwrap_or("?").to_owned();
            paging::position(&[("Last-Event-ID".to_owned(), id)], "Last-Event-ID")?
        }
        None => paging::position(&parameters, "since")?,
    };
    let end = service.follows.feed_end().await?;
    if let Some(since) = since {
        paging::check_position(&service, since).await?;
    }
    // It names the organization if that is out of reach: later there is nobody to tell.
    let reach = auditor.reach();
    if let Some(unreachable) = service.reads.unreachable(&search, &reach).await? {
        return Err(ApiError::out_of_reach(&unreachable));
    }
    let share = service.shares.take(auditor.0.token.id, service.limits.tails_per_token)?;
    let slot = Slot::take(&service.tails, "tails")?;
    let record = service.audit.begin(&auditor.0, &request_use);
    service.audit.record_now(&record).await?;
    let position = since.unwrap_or(end);
    let tail = Tail {
        form,
        bearer: auditor.0,
        search,
        reach,
        position,
        waiting: VecDeque::from([ready(position)]),
        token_seen: Instant::now(),
        lag_told: None,
        given_at: Instant::now(),
        is_over: false,
        record,
        service,
        _slot: slot,
        _share: share,
    };
    let (sender, events) = mpsc::channel(WAITING_EVENTS);
    tokio::spawn(tail.run(sender));
    let events = ReceiverStream::new(events).map(Ok::<_, Infallible>);
    Ok((Extension(RecordsItself), [("x-accel-buffering", "no")], Sse::new(events)).into_response())
}

struct Tail {
    service: Service,
    form: As,
    bearer: Bearer,
    search: Search,
    reach: Reach,
    /// Up to where the feed was read.
    position: Position,
    /// Events that wait to be given.
    waiting: VecDeque<Event>,
    token_seen: Instant,
    lag_told: Option<Instant>,
    given_at: Instant,
    is_over: bool,
    record: AuditRecord,
    _slot: Slot,
    _share: Share,
}

impl Tail {
    /// Gives events as the client reads them, until either side ends it, and records that.
    async fn run(mut self, sender: mpsc::Sender<Event>) {
        let shutdown = self.service.shutdown.clone();
        loop {
            let event = tokio::select! {
                event = self.next() => event,
                () = sender.closed() => None,
            };
            let Some(event) = event else { break };
            if give(&sender, event, &shutdown).await.is_err() {
                break;
            }
        }
        self.record.complete = Some(true);
        self.service.audit.record(self.record).await;
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if !self.is_over && self.token_seen.elapsed() > TOKEN_INTERVAL && !self.token_is_valid().await {
                // What is read slowly is not given any more either.
                self.waiting.clear();
                self.over("the token is no longer valid", false);
            }
            if let Some(event) = self.waiting.pop_front() {
                self.given_at = Instant::now();
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            if self.service.shutdown.has_begun() {
                self.over("the service is stopping; come back with the last id", true);
            } else {
                self.look().await;
            }
        }
    }

    async fn token_is_valid(&mut self) -> bool {
        self.token_seen = Instant::now();
        self.service.authenticator.is_still_valid(&self.bearer).await
    }

    async fn look(&mut self) {
        let behind = self.service.pulse.behind(self.position);
        if self.is_told_of(behind) {
            self.lag_told = Some(Instant::now());
            let data = json!({ "behind_seconds": behind.as_secs() });
            self.waiting.push_back(Event::default().event("lag").data(data.to_string()));
        }
        let now = self.service.clock.now();
        match self.service.follows.changes(&self.search, &self.reach, self.position, TOGETHER, now).await {
            Ok(Ok(changes)) => {
                self.position = changes.position;
                let told = i64::try_from(changes.entries.len()).unwrap_or(0);
                self.record.rows = Some(self.record.rows.unwrap_or(0) + told);
                self.waiting.extend(changes.entries.into_iter().map(|entry| change(entry, self.form, now)));
                if changes.at_end && self.waiting.is_empty() {
                    self.wait().await;
                }
            }
            Ok(Err(NoChanges::UnknownPosition)) => self.lost_its_place().await,
            Ok(Err(NoChanges::Unreachable(_))) => self.over("the organization is gone", false),
            Err(error) if error.is_unavailable() || error.is_transient() => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a tail failed");
                self.over("the log is not available", false);
            }
        }
    }

    /// A standby may only be behind; if the primary does not know the position either, it is gone.
    async fn lost_its_place(&mut self) {
        match paging::check_position(&self.service, self.position).await {
            Err(error) if error.status() == StatusCode::GONE => self.over(&error.explanation(), false),
            Ok(()) | Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }

    /// Whether a lag is long enough to tell, and the last one was told as long ago.
    fn is_told_of(&self, lag: Duration) -> bool {
        let notable = self.service.limits.tail_lag;
        lag > notable && self.lag_told.is_none_or(|told| told.elapsed() > notable)
    }

    /// Until there may be more, or it is time for a sign of life.
    async fn wait(&mut self) {
        let held_up = self.service.pulse.held_up();
        if self.is_told_of(held_up) {
            self.lag_told = Some(Instant::now());
            let data = json!({ "behind_seconds": held_up.as_secs(), "reason": "a transaction on the server is still running" });
            self.waiting.push_back(Event::default().event("lag").data(data.to_string()));
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = self.service.pulse.beyond(self.position) => {}
            () = self.service.shutdown.begun() => {}
        }
        if self.given_at.elapsed() > IDLE_INTERVAL {
            let event = Event::default().event("position").id(self.position.encode());
            self.waiting.push_back(event.data("{}"));
        }
    }

    /// Ends it. `resume` says whether the same client can go on with its last id.
    fn over(&mut self, reason: &str, resume: bool) {
        self.is_over = true;
        let data = json!({ "reason": reason, "resume": resume });
        self.waiting.push_back(Event::default().event("end").data(data.to_string()));
    }
}

/// Where the tail begins, so that a client that is cut off before the first change knows it.
fn ready(position: Position) -> Event {
    Event::default().event("ready").id(position.encode()).data("{}")
}

fn change(entry: Entry, form: As, now: Timestamp) -> Event {
    let kind = match (entry.method.is_web(), entry.disconnect_time, entry.disconnect_inferred) {
        (true, _, _) => "web",
        (false, None, _) => "connect",
        (false, Some(_), true) => "inferred",
        (false, Some(_), false) => "disconnect",
    };
    let id = entry.position.map(|position| position.encode()).unwrap_or_default();
    let data = match form {
        As::Entries => one_line(&ConnectionLog::from(entry)),
        As::Rows(zone) => live_row(&entry, zone, now).to_string(),
    };
    Event::default().event(kind).id(id).data(data)
}
