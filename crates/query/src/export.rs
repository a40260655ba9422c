//! `GET /api/v2/connectionlog/export`: everything that matches, or everything that changed since a position.
//!
//! An export is read in chunks, none of which holds a snapshot, and the next one only while the client reads: memory is
//! constant and vacuum is not held up. It ends with a record that says how many rows there were, whether that is all,
//! and up to which position of the change feed. An export `since` that position brings every later change.

mod csv;
mod format;
mod ndjson;
mod ocsf;
mod source;

use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::HeaderName;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use connlog_model::cursor::Position;
use connlog_model::search::Invalid;
use connlog_store::AuditRecord;
use connlog_store::read::{Entry, NoChanges};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

pub use self::format::Format;
use self::format::Summary;
use self::source::Source;
use crate::audit::{RecordsItself, UseOf};
use crate::auth::{Auditor, Bearer};
use crate::error::ApiError;
use crate::give::{LAST_WORD, NotGiven, give};
use crate::list::parse_search;
use crate::paging;
use crate::serve::Service;
use crate::slot::Slot;

/// Pieces that wait for the client to read, about a chunk in all, and how many bytes one has at most.
const WAITING_PIECES: usize = 64;
const PIECE: usize = 64 << 10;
/// Attempts at a chunk while the database is unavailable, and the pause between them.
const ATTEMPTS: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);
/// How often the token is looked at again.
const TOKEN_INTERVAL: Duration = Duration::from_secs(5);
/// Where the change feed stood when the export began.
const POSITION_HEADER: HeaderName = HeaderName::from_static("connlog-position");

/// Streams an export.
#[utoipa::path(
    get,
    path = "/api/v2/connectionlog/export",
    params(
        ("q" = Option<String>, Query, description = "Search"),
        ("format" = Option<Format>, Query, description = "`ndjson` by default"),
        ("after" = Option<String>, Query, description = "Goes on after the row with this `cursor`"),
        ("since" = Option<String>, Query, description = "Only what changed after this position, in the order of the change feed; 410 if it is gone"),
        ("consumer" = Option<String>, Query, description = "The registered consumer that has everything up to `since`: later changes are kept for it"),
    ),
    responses(
        (status = 200, description = "Rows, and a record at the end", content((String = "application/x-ndjson"), (String = "text/csv"))),
    )
)]
pub async fn export(
    State(service): State<Service>,
    auditor: Auditor,
    Extension(request_use): Extension<UseOf>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let format = Format::parse(paging::value(&parameters, "format"))?;
    let search = parse_search(&service, &auditor, &parameters).await?;
    let cursor = paging::cursor(&parameters, &search)?;
    let since = paging::position(&parameters, "since")?;
    if cursor.is_some() && since.is_some() {
        let detail = "Query param \"after\" cannot be combined with \"since\"".to_owned();
        return Err(ApiError::invalid_parameters(vec![Invalid { field: "after".to_owned(), detail }]));
    }
    let began_with = cursor.map(|cursor| cursor.began_at.ok_or_else(not_of_an_export)).transpose()?;
    if let Some(unreachable) = service.reads.unreachable(&search, &auditor.reach()).await? {
        return Err(ApiError::out_of_reach(&unreachable));
    }
    let slot = service.exports.enter(auditor.0.token.id, "exports").await?;
    let end = service.follows.feed_end().await?;
    if let Some(since) = since {
        paging::check_position(&service, since).await?;
    }
    if let Some(consumer) = paging::value(&parameters, "consumer") {
        note_read(&service, &auditor, consumer, since).await?;
    }
    let began_at = began_with.unwrap_or(end);
    let mut record = service.audit.begin(&auditor.0, &request_use);
    record.format = Some(format.as_str());
    service.audit.record_now(&record).await?;

    let source = match since {
        Some(since) => Source::changes(search, auditor.reach(), since, end),
        None => Source::pages(search, auditor.reach(), cursor.map(|cursor| (cursor.time, cursor.id)), began_at),
    };
    let (sender, chunks) = mpsc::channel(WAITING_PIECES);
    let job = Job { service, bearer: auditor.0, source, record, _slot: slot };
    tokio::spawn(job.run(format, sender));
    let body = Body::from_stream(ReceiverStream::new(chunks).map(Ok::<Bytes, std::convert::Infallible>));
    let file_name = format!("attachment; filename=\"connection-log.{}\"", format.extension());
    let answer = [
        (CONTENT_TYPE, format.content_type().to_owned()),
        (CONTENT_DISPOSITION, file_name),
        (POSITION_HEADER, began_at.encode()),
    ];
    Ok((Extension(RecordsItself), answer, body).into_response())
}

/// Notes that a consumer has everything up to the position that it goes on from.
async fn note_read(
    service: &Service,
    auditor: &Auditor,
    consumer: &str,
    since: Option<Position>,
) -> Result<(), ApiError> {
    let invalid = |detail: &str| {
        ApiError::invalid_parameters(vec![Invalid { field: "consumer".to_owned(), detail: detail.to_owned() }])
    };
    let since = since.ok_or_else(|| invalid("Query param \"consumer\" goes with \"since\""))?;
    if service.primary.note_read(consumer, since, auditor.0.token.id).await? {
        return Ok(());
    }
    Err(invalid("Query param \"consumer\" is no registered consumer of this token: see `connlogctl feed`"))
}

/// A cursor of the list does not say up to where what came before it is complete.
fn not_of_an_export() -> ApiError {
    let detail = "Query param \"after\" is a cursor of the list: an export goes on after a row of an export".to_owned();
    ApiError::invalid_parameters(vec![Invalid { field: "after".to_owned(), detail }])
}

/// An export that runs.
struct Job {
    service: Service,
    bearer: Bearer,
    source: Source,
    record: AuditRecord,
    _slot: Slot,
}

/// Why an export ended before its end.
enum Stopped {
    /// Nobody reads it any more.
    Gone,
    /// Something else, in words.
    Because(String),
}

impl From<NotGiven> for Stopped {
    fn from(not_given: NotGiven) -> Self {
        match not_given {
            NotGiven::Gone => Self::Gone,
            NotGiven::Stopping => Self::Because("the service is stopping".to_owned()),
        }
    }
}

impl Job {
    async fn run(mut self, format: Format, sender: mpsc::Sender<Bytes>) {
        let mut rows = 0_u64;
        let outcome = self.write_all(format, &mut rows, &sender).await;
        let error = match &outcome {
            Ok(()) => None,
            Err(Stopped::Gone) => Some("the client went away".to_owned()),
            Err(Stopped::Because(reason)) => Some(reason.clone()),
        };
        let summary = Summary { rows, complete: outcome.is_ok(), position: self.source.position().encode(), error };
        // To nobody, if nobody is there.
        let _gone = sender.send_timeout(format.end(&summary), LAST_WORD).await;
        (self.record.rows, self.record.complete) = (i64::try_from(rows).ok(), Some(summary.complete));
        self.service.audit.record(self.record).await;
    }

    /// While a chunk is written, the next one is read.
    async fn write_all(&mut self, format: Format, rows: &mut u64, sender: &mpsc::Sender<Bytes>) -> Result<(), Stopped> {
        let shutdown = self.service.shutdown.clone();
        if let Some(head) = format.head() {
            give(sender, head, &shutdown).await?;
        }
        let mut token_seen = Instant::now();
        let cursors = self.source.cursors();
        let mut read = self.next().await?;
        while let Some(entries) = read {
            if shutdown.has_begun() {
                return Err(NotGiven::Stopping.into());
            }
            let count = entries.len() as u64;
            let writing = tokio::task::spawn_blocking(move || format.write(entries, cursors));
            let (written, next) = tokio::join!(writing, self.next());
            let mut bytes = written.map_err(|_| Stopped::Because("an internal error".to_owned()))?;
            if bytes.is_empty() && sender.is_closed() {
                return Err(Stopped::Gone);
            }
            // Piece by piece: a client that reads slowly is not taken for one that does not read.
            while !bytes.is_empty() {
                if token_seen.elapsed() > TOKEN_INTERVAL {
                    if !self.service.authenticator.is_still_valid(&self.bearer).await {
                        return Err(Stopped::Because("the token is no longer valid".to_owned()));
                    }
                    token_seen = Instant::now();
                }
                give(sender, bytes.split_to(bytes.len().min(PIECE)), &shutdown).await?;
            }
            *rows += count;
            read = next?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>, Stopped> {
        let now = self.service.clock.now();
        let mut attempt = 0;
        loop {
            match self.source.next(&self.service.follows, now).await {
                Ok(Ok(entries)) => return Ok(entries),
                Ok(Err(NoChanges::Unreachable(unreachable))) => {
                    return Err(Stopped::Because(format!("organization {} is gone", unreachable.organization)));
                }
                Ok(Err(NoChanges::UnknownPosition)) => {
                    return Err(Stopped::Because(
                        "the position is gone: start anew with an export of everything".to_owned(),
                    ));
                }
                Err(error) if (error.is_unavailable() || error.is_transient()) && attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "an export failed");
                    return Err(Stopped::Because("the log is not available".to_owned()));
                }
            }
        }
    }
}
