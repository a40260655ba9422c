//! The door: who calls is known before anything of the call is read.
//!
//! For a caller without a valid token the service holds the head of the request, and one window of flow control while the token is
//! looked up. The number of look-ups at once is bounded. Health and reflection need no token; the number of their calls and the
//! size of their messages are bounded.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use moka::sync::Cache;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};
use uuid::Uuid;

use crate::auth::{Authenticator, Caller};
use crate::grpc::{too_much, unavailable};
use crate::peer::Visitor;
use crate::revoked::{self, Call, Calls, Ended};
use crate::undecoded::Undecoded;

/// Largest message of an open service, in bytes.
pub const MAX_OPEN_MESSAGE_BYTES: usize = 4 << 10;
/// Calls of open services at once, and those of one address.
const OPEN_CALLS: usize = 1000;
const OPEN_CALLS_OF_ADDRESS: usize = 20;
/// How long an open call may take to say everything that it has to say.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);
/// Most look-ups of tokens at once, in all and from one address, including those that wait. Further callers get UNAVAILABLE.
const LOOK_UPS: usize = 1024;
const LOOK_UPS_OF_ADDRESS: usize = 256;
/// Calls of one caller at once.
const CALLS_OF_CALLER: usize = 128;
/// After so many wrong tokens from an address within a minute, its look-ups are done one at a time, with a pause between them.
const MAX_FAILED_ATTEMPTS: u32 = 100;
const GUESSING_PAUSE: Duration = Duration::from_millis(5);
/// Addresses and callers that are remembered.
const REMEMBERED: u64 = 100_000;

/// Lets callers in.
#[derive(Clone)]
pub struct Door {
    authenticator: Authenticator,
    undecoded: Undecoded,
    calls: Calls,
    open_calls: Arc<Semaphore>,
    open_calls_of: Cache<IpAddr, Arc<Semaphore>>,
    look_ups: Arc<Semaphore>,
    guests: Cache<IpAddr, Arc<Guest>>,
    callers: Cache<Uuid, Arc<Semaphore>>,
    requires_bound_certificates: bool,
}

/// An address from which tokens are looked up.
struct Guest {
    look_ups: Semaphore,
    failed: AtomicU32,
    /// One look-up after another, once too many have failed.
    turn: Mutex<()>,
}

/// A place among the calls at once, for as long as it is held.
struct Place {
    _permits: Vec<OwnedSemaphorePermit>,
    /// The call, if it has a token.
    call: Option<Call>,
}

impl Door {
    /// A door that recognizes callers by `authenticator`, bounds their messages by `undecoded`, and notes their calls in `calls`.
    /// With `requires_bound_certificates`, callers come by a certificate that is theirs.
    pub fn new(
        authenticator: Authenticator,
        undecoded: Undecoded,
        calls: Calls,
        requires_bound_certificates: bool,
    ) -> Self {
        for cause in
            ["no_token", "unknown_token", "certificate", "too_many_look_ups", "too_many_calls", "too_many_open_calls"]
        {
            metrics::counter!("connlog_ingest_refused_calls_total", "cause" => cause).increment(0);
        }
        let minute = Duration::from_mins(1);
        Self {
            authenticator,
            undecoded,
            calls,
            open_calls: Arc::new(Semaphore::new(OPEN_CALLS)),
            open_calls_of: Cache::builder().max_capacity(REMEMBERED).time_to_idle(minute).build(),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS)),
            guests: Cache::builder().max_capacity(REMEMBERED).time_to_live(minute).build(),
            callers: Cache::builder().max_capacity(REMEMBERED).time_to_idle(minute).build(),
            requires_bound_certificates,
        }
    }

    /// Lets a call in, with who calls in its extensions, or says why not.
    async fn admit(&self, request: &mut Request<Body>) -> Result<Place, Status> {
        let visitor = request.extensions().get::<Visitor>().cloned();
        let address = visitor.as_ref().map_or(IpAddr::from([0, 0, 0, 0]), |visitor| visitor.address);
        let Some(sha256) = Authenticator::digest(request.headers()) else {
            refused("no_token");
            let how = "a token is needed, as `authorization: Bearer …` or `coder-session-token`";
            return Err(Status::unauthenticated(how));
        };
        let call = self.calls.begin(sha256.clone());
        let caller = self.recognize(sha256, address).await?;
        let id = caller.id();
        if let Some(visitor) = &visitor {
            self.check_certificate(&visitor.bound_to, id)?;
            visitor.acquaintance.recognize();
        }
        let calls = self.callers.get_with(id, || Arc::new(Semaphore::new(CALLS_OF_CALLER)));
        let place = calls.try_acquire_owned().map_err(|_| {
            refused("too_many_calls");
            too_much("the caller has too many calls at once")
        })?;
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::new(call.bound(self.undecoded.meter(id, body)));
        request.extensions_mut().insert(caller);
        Ok(Place { _permits: vec![place], call: Some(call) })
    }

    /// Whether a caller may come by a connection whose certificate is for `bound_to`.
    fn check_certificate(&self, bound_to: &[Uuid], caller: Uuid) -> Result<(), Status> {
        let why = match bound_to {
            [] if self.requires_bound_certificates => "the client's certificate is bound to no agent and no token",
            [] => return Ok(()),
            ids if ids.contains(&caller) => return Ok(()),
            _ => "the client's certificate is bound to another agent or token",
        };
        refused("certificate");
        Err(Status::permission_denied(why))
    }

    /// Lets a call of health or reflection in.
    fn admit_stranger(&self, request: &Request<Body>) -> Result<Place, Status> {
        let address = request.extensions().get::<Visitor>().map_or(IpAddr::from([0, 0, 0, 0]), |from| from.address);
        let own = self.open_calls_of.get_with(address, || Arc::new(Semaphore::new(OPEN_CALLS_OF_ADDRESS)));
        let own = own.try_acquire_owned();
        let places = own.and_then(|own| Ok(vec![own, Arc::clone(&self.open_calls).try_acquire_owned()?]));
        places.map(|permits| Place { _permits: permits, call: None }).map_err(|_| {
            refused("too_many_open_calls");
            too_much("too many calls of health and reflection at once")
        })
    }

    async fn recognize(&self, sha256: Vec<u8>, address: IpAddr) -> Result<Caller, Status> {
        if let Some(caller) = self.authenticator.recognized().get(&sha256).await {
            return Ok(caller);
        }
        let busy = || {
            refused("too_many_look_ups");
            unavailable("too many tokens are being looked up")
        };
        // Somebody who was here a while ago is not kept out, or waiting, because of what a neighbour does.
        if self.authenticator.recognized().knew(&sha256).await {
            return self.look_up(sha256, None).await;
        }
        let guest = self.guests.get_with(address, || Arc::new(Guest::new()));
        let _turn =
            (self.look_ups.try_acquire().map_err(|_| busy())?, guest.look_ups.try_acquire().map_err(|_| busy())?);
        if guest.failed.load(Ordering::Relaxed) < MAX_FAILED_ATTEMPTS {
            return self.look_up(sha256, Some(&guest)).await;
        }
        // In the order in which they came: whoever has a token waits behind who guesses, and is let in.
        let _alone = guest.turn.lock().await;
        tokio::time::sleep(GUESSING_PAUSE).await;
        self.look_up(sha256, Some(&guest)).await
    }

    async fn look_up(&self, sha256: Vec<u8>, guest: Option<&Guest>) -> Result<Caller, Status> {
        let found = self.authenticator.look_up(sha256).await.map_err(|error| crate::grpc::status(&error))?;
        found.ok_or_else(|| {
            refused("unknown_token");
            if let Some(guest) = guest {
                guest.failed.fetch_add(1, Ordering::Relaxed);
            }
            Status::unauthenticated("the token is unknown, expired or revoked")
        })
    }
}

impl Guest {
    fn new() -> Self {
        Self { look_ups: Semaphore::new(LOOK_UPS_OF_ADDRESS), failed: AtomicU32::new(0), turn: Mutex::new(()) }
    }
}

fn refused(cause: &'static str) {
    metrics::counter!("connlog_ingest_refused_calls_total", "cause" => cause).increment(1);
}

/// Whether a method is of health or reflection, for which nobody needs a token.
fn is_open(path: &str) -> bool {
    ["/grpc.health.v1.", "/grpc.reflection.v1.", "/grpc.reflection.v1alpha."].iter().any(|open| path.starts_with(open))
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded { inner, door: self.clone() }
    }
}

/// A server behind the door.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    door: Door,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that was found ready.
        let mut inner = self.inner.clone();
        std::mem::swap(&mut inner, &mut self.inner);
        let door = self.door.clone();
        Box::pin(async move {
            let open = is_open(request.uri().path());
            let admitted = if open { door.admit_stranger(&request) } else { door.admit(&mut request).await };
            let place = match admitted {
                Ok(place) => place,
                Err(status) => return Ok(status.into_http()),
            };
            let answered = if open {
                match tokio::time::timeout(OPEN_DEADLINE, inner.call(request)).await {
                    Ok(answered) => answered?,
                    Err(_) => return Ok(Status::deadline_exceeded("the request took too long").into_http()),
                }
            } else {
                inner.call(request).await?
            };
            let ended = place.call.as_ref().map(Call::ended);
            Ok(answered.map(|body| Body::new(Held { body, ended, _place: place })))
        })
    }
}

/// An answer that keeps a place for as long as it lasts, and ends once the token of its call is not accepted any more.
struct Held {
    body: Body,
    ended: Option<Ended>,
    _place: Place,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(ended) = &mut self.ended
            && ended.as_mut().poll(context).is_ready()
        {
            (self.ended, self.body) = (None, Body::empty());
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(revoked::status().add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
