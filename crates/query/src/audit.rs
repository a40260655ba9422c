//! The audit of the API itself: each use of a token is recorded, with what was asked for and how much was given.
//!
//! Uses are recorded soon after, many at a time, and what waits is written before the service ends. Exports are recorded
//! before their first row is given, and again at their end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use connlog_model::clock::Clock;
use connlog_runtime::listen::PeerAddress;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::{AuditRecord, Store};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::auth::{Bearer, peer};
use crate::paging;
use crate::serve::Service;

/// Uses that wait to be recorded; beyond it answers wait.
const WAITING: usize = 4096;
/// Most uses that are recorded together.
const TOGETHER: usize = 500;
/// Pause after a failed attempt to record.
const PAUSE: Duration = Duration::from_millis(500);
/// A search is kept up to so many characters.
const MAX_QUERY_CHARS: usize = 4000;

/// Whoever makes a request, once that is known.
#[derive(Debug, Clone, Default)]
pub struct Caller(Arc<OnceLock<Bearer>>);

impl Caller {
    /// Notes who it is.
    pub fn is(&self, bearer: Bearer) {
        // A request has one caller, however often it is asked.
        let _known = self.0.set(bearer);
    }

    /// Who it is, if that is known.
    pub(crate) fn bearer(&self) -> Option<&Bearer> {
        self.0.get()
    }
}

/// How many entries an answer gives, as its handler says.
#[derive(Debug, Clone, Copy)]
pub struct Given(pub usize);

/// An answer that records its use itself.
#[derive(Debug, Clone, Copy)]
pub struct RecordsItself;

/// Records uses.
#[derive(Clone)]
pub struct Audit {
    store: Store,
    clock: Clock,
    waiting: mpsc::Sender<AuditRecord>,
}

impl Audit {
    /// Starts recording.
    pub fn start(store: Store, clock: Clock, shutdown: &Shutdown) -> Self {
        let (waiting, records) = mpsc::channel(WAITING);
        shutdown.spawn("audit", record(store.clone(), records, shutdown.clone()));
        Self { store, clock, waiting }
    }

    /// A use that begins now.
    pub fn begin(&self, bearer: &Bearer, request: &UseOf) -> AuditRecord {
        let token = &bearer.token;
        AuditRecord {
            id: Uuid::now_v7(),
            at: self.clock.now(),
            token_id: token.id,
            user_id: token.user_id,
            address: Some(request.address),
            endpoint: request.endpoint.clone(),
            query: request.query.chars().take(MAX_QUERY_CHARS).collect(),
            format: None,
            status: 200,
            rows: None,
            complete: None,
        }
    }

    /// Records a use soon.
    pub async fn record(&self, record: AuditRecord) {
        log(&record);
        // The receiver ends with the service, after it has written what waits.
        let _stopping = self.waiting.send(record).await;
    }

    /// Records a use now.
    pub async fn record_now(&self, record: &AuditRecord) -> Result<(), connlog_store::StoreError> {
        log(record);
        self.store.record_audit(std::slice::from_ref(record)).await
    }
}

/// What a request is for.
#[derive(Debug, Clone)]
pub struct UseOf {
    pub(crate) address: std::net::IpAddr,
    pub(crate) endpoint: String,
    pub(crate) query: String,
}

impl UseOf {
    fn of(request: &Request) -> Self {
        let path = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
        let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(request.uri());
        let query = query.ok().and_then(|pairs| paging::value(&pairs.0, "q").map(str::to_owned));
        Self {
            address: peer(request.extensions().get::<ConnectInfo<PeerAddress>>()),
            endpoint: path.to_owned(),
            query: query.unwrap_or_default(),
        }
    }
}

/// Around each request.
pub async fn audited(State(service): State<Service>, mut request: Request, next: Next) -> Response {
    let (caller, request_use) = (Caller::default(), UseOf::of(&request));
    request.extensions_mut().insert(caller.clone());
    request.extensions_mut().insert(request_use.clone());
    let mut guard =
        Unanswered { audit: service.audit.clone(), caller: caller.clone(), request_use, is_answered: false };
    let response = next.run(request).await;
    guard.is_answered = true;
    if let Some(bearer) = caller.bearer()
        && response.extensions().get::<RecordsItself>().is_none()
    {
        let mut record = service.audit.begin(bearer, &guard.request_use);
        record.status = i16::try_from(response.status().as_u16()).unwrap_or(0);
        record.rows = response.extensions().get::<Given>().and_then(|given| i64::try_from(given.0).ok());
        service.audit.record(record).await;
    }
    response
}

/// Records a use whose client went away before the answer.
struct Unanswered {
    audit: Audit,
    caller: Caller,
    request_use: UseOf,
    is_answered: bool,
}

/// What nginx logs when a client closes its request.
const CLIENT_CLOSED_REQUEST: i16 = 499;

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(token) = self.caller.0.get().filter(|_| !self.is_answered) else { return };
        let mut record = self.audit.begin(token, &self.request_use);
        record.status = CLIENT_CLOSED_REQUEST;
        let audit = self.audit.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { audit.record(record).await });
        }
    }
}

fn log(record: &AuditRecord) {
    tracing::info!(
        target: "connlog_query::audit",
        token_id = %record.token_id,
        user_id = record.user_id.map(tracing::field::display),
        address = record.address.map(tracing::field::display),
        endpoint = record.endpoint,
        query = record.query,
        format = record.format,
        status = record.status,
        rows = record.rows,
        complete = record.complete,
        "the API was used"
    );
}

async fn record(store: Store, mut records: mpsc::Receiver<AuditRecord>, shutdown: Shutdown) {
    let mut together = Vec::with_capacity(TOGETHER);
    loop {
        tokio::select! {
            biased;
            count = records.recv_many(&mut together, TOGETHER) => if count == 0 { return },
            () = shutdown.begun() => return drain(&store, records).await,
        }
        while let Err(error) = store.record_audit(&together).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "uses of the API cannot be recorded; they wait");
            if shutdown.has_begun() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        together.clear();
    }
}

/// What answers that are still being given have to say, until the last of them is done.
async fn drain(store: &Store, mut records: mpsc::Receiver<AuditRecord>) {
    let mut together = Vec::new();
    while records.recv_many(&mut together, TOGETHER).await > 0 {
        if let Err(error) = store.record_audit(&together).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                uses = together.len(),
                "uses of the API were not recorded"
            );
        }
        together.clear();
    }
}
