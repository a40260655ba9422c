//! How fresh the answers are: `Connlog-Fresh-As-Of` says up to when everything committed is in them.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use connlog_model::clock::{Clock, Timestamp, rfc3339};
use connlog_runtime::shutdown::Shutdown;
use connlog_store::Store;
use tokio::sync::watch;

use crate::serve::Service;

/// How often a replica is asked how far it is.
const INTERVAL: Duration = Duration::from_secs(1);
const HEADER: HeaderName = HeaderName::from_static("connlog-fresh-as-of");

/// How fresh the database for reads is.
#[derive(Clone)]
pub(crate) struct Freshness {
    as_of: watch::Receiver<Option<Timestamp>>,
}

impl Freshness {
    /// Up to when everything committed is in the answers, if that is known.
    pub(crate) fn as_of(&self) -> Option<Timestamp> {
        *self.as_of.borrow()
    }

    /// Starts asking.
    pub(crate) fn start(store: Store, clock: Clock, shutdown: &Shutdown) -> Self {
        let (sender, as_of) = watch::channel(None);
        shutdown.spawn("freshness", ask(store, clock, sender, shutdown.clone()));
        Self { as_of }
    }
}

/// States it in each answer of the log.
pub(crate) async fn stated(State(service): State<Service>, request: Request, next: Next) -> Response {
    // Before the answer is read: what is stated is at least true.
    let as_of = service.freshness.as_of();
    let mut response = next.run(request).await;
    if let Some(value) = as_of.and_then(|as_of| HeaderValue::from_str(&rfc3339(as_of)).ok()) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}

async fn ask(store: Store, clock: Clock, sender: watch::Sender<Option<Timestamp>>, shutdown: Shutdown) {
    loop {
        match store.fresh_as_of(clock.now()).await {
            Ok(as_of) => drop(sender.send_replace(as_of)),
            Err(error) => tracing::debug!(%error, "the freshness of the database is not known"),
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = shutdown.begun() => return,
        }
    }
}
