//! Ends calls whose token is revoked, or expires, while they go on: a stream may last for a day.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use connlog_model::clock::Clock;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::{Store, StoreError};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use crate::auth::Authenticator;

/// How often it is asked whether anything was revoked.
const ROUND: Duration = Duration::from_secs(2);
/// How often the tokens of all calls are looked up, so that one that has expired is noticed.
const LOOK_UP: Duration = Duration::from_mins(1);
/// Tokens that are looked up together.
const TOGETHER: usize = 5_000;

/// The calls that go on, by their tokens.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<HashMap<Vec<u8>, Calling>>>);

#[derive(Default)]
struct Calling {
    calls: usize,
    ended: CancellationToken,
}

/// A call that goes on, for as long as this is held.
pub(crate) struct Call {
    calls: Calls,
    sha256: Vec<u8>,
    ended: CancellationToken,
}

impl Calls {
    /// Notes that a call with a token begins. To be called before the token is recognized: a revocation in between would miss the
    /// call.
    pub(crate) fn begin(&self, sha256: Vec<u8>) -> Call {
        let mut all = self.0.lock().expect("nobody panics while holding the calls");
        let calling = all.entry(sha256.clone()).or_default();
        calling.calls += 1;
        let ended = calling.ended.clone();
        drop(all);
        Call { calls: self.clone(), sha256, ended }
    }

    fn tokens(&self) -> Vec<Vec<u8>> {
        self.0.lock().expect("nobody panics while holding the calls").keys().cloned().collect()
    }

    /// Ends the calls of a token, and returns how many. What begins after that is another matter.
    fn end(&self, sha256: &[u8]) -> usize {
        let mut all = self.0.lock().expect("nobody panics while holding the calls");
        let calling = all.remove(sha256).unwrap_or_default();
        // Under the lock: a call that ends by itself meanwhile is not taken for one of those that begin later.
        calling.ended.cancel();
        calling.calls
    }

    /// Watches over them until the service stops.
    pub(crate) async fn watch(self, store: Store, authenticator: Authenticator, clock: Clock, shutdown: Shutdown) {
        metrics::counter!("connlog_ingest_ended_calls_total").increment(0);
        let (mut seen, mut looked_at) = (None, Instant::now());
        loop {
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = shutdown.begun() => return,
            }
            let round = async {
                let version = store.revocations().await?;
                if seen != Some(version) {
                    // First: who calls from now on is looked up, and who called before is among those that are looked at.
                    authenticator.recognized().forget();
                } else if looked_at.elapsed() < LOOK_UP {
                    return Ok(());
                }
                self.look_up(&store, &clock, &authenticator).await?;
                (seen, looked_at) = (Some(version), Instant::now());
                Ok::<(), StoreError>(())
            };
            match round.await {
                Ok(()) => {}
                Err(error) if error.is_unavailable() => tracing::debug!(%error, "revocations cannot be asked for"),
                Err(error) => tracing::error!(
                    error = error.one_line(),
                    "revocations cannot be asked for: a revoked token is accepted"
                ),
            }
        }
    }

    async fn look_up(&self, store: &Store, clock: &Clock, authenticator: &Authenticator) -> Result<(), StoreError> {
        for tokens in self.tokens().chunks(TOGETHER) {
            let valid = store.valid_tokens(tokens, clock.now()).await?;
            for token in tokens.iter().filter(|token| !valid.contains(*token)) {
                let calls = self.end(token);
                // Not of somebody who guesses, whose token is being looked up.
                if authenticator.recognized().knew(token).await {
                    tracing::info!(calls, "calls end: their token was revoked, or has expired");
                    metrics::counter!("connlog_ingest_ended_calls_total").increment(u64::try_from(calls).unwrap_or(0));
                }
            }
        }
        Ok(())
    }
}

/// Until the token of a call is not accepted any more.
pub(crate) type Ended = Pin<Box<WaitForCancellationFutureOwned>>;

impl Call {
    /// Until its token is not accepted any more.
    pub(crate) fn ended(&self) -> Ended {
        Box::pin(self.ended.clone().cancelled_owned())
    }

    /// What is sent with its token, for as long as the token is accepted.
    pub(crate) fn bound<B>(&self, body: B) -> Bound<B> {
        Bound { body, ended: Some(self.ended()) }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut all = self.calls.0.lock().expect("nobody panics while holding the calls");
        if let Some(calling) = all.get_mut(&self.sha256).filter(|_| !self.ended.is_cancelled()) {
            calling.calls -= 1;
            if calling.calls == 0 {
                all.remove(&self.sha256);
            }
        }
    }
}

/// The answer to a call whose token is not accepted any more.
pub(crate) fn status() -> Status {
    Status::unauthenticated("the token was revoked, or has expired")
}

/// The body of a request, which breaks off once the token of its call is not accepted any more.
pub(crate) struct Bound<B> {
    body: B,
    /// None once it has broken off.
    ended: Option<Ended>,
}

impl<B> Body for Bound<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<tonic::codegen::StdError>,
{
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(ended) = &mut self.ended else { return Poll::Ready(None) };
        if ended.as_mut().poll(context).is_ready() {
            self.ended = None;
            return Poll::Ready(Some(Err(status().into())));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.ended.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
