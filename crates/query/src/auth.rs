//! Who asks: the bearer of an API token, from `Coder-Session-Token`, `Authorization: Bearer`, or the dashboard's cookie.
//!
//! Recognized tokens are remembered for a short while, and forgotten once one was revoked.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use connlog_model::clock::Clock;
use connlog_runtime::listen::PeerAddress;
use connlog_runtime::recognized::Recognized;
use connlog_runtime::shutdown::Shutdown;
use connlog_runtime::strangers::Acquaintance;
use connlog_store::read::Reach;
use connlog_store::tokens::{self, ApiToken};
use connlog_store::{Store, StoreError};
use moka::sync::Cache;
use tokio::sync::{Mutex, Semaphore};

use crate::audit::Caller;
use crate::error::ApiError;
use crate::serve::Service;

/// Most tokens that are remembered.
const CACHE_ENTRIES: u64 = 10_000;
/// Tokens that an address may get wrong within a minute.
const MAX_FAILED_ATTEMPTS: u32 = 20;
/// Once it is over that, its look-ups go one after another: the pause after each, and how many may wait for their turn.
const GUESSING_PAUSE: Duration = Duration::from_millis(5);
const WAITING: usize = 200;
/// How often it is asked whether a token was revoked.
const REVOCATION_ROUND: Duration = Duration::from_secs(2);
/// The dashboard's cookie.
pub const SESSION_COOKIE: &str = "connlog_session";

/// Recognizes tokens.
#[derive(Clone)]
pub struct Authenticator {
    store: Store,
    clock: Clock,
    recognized: Recognized<Arc<ApiToken>>,
    guests: Cache<IpAddr, Arc<Guest>>,
}

/// An address from which tokens are looked up.
struct Guest {
    /// Attempts that failed within the last minute.
    failed: AtomicU32,
    waiting: Semaphore,
    /// One look-up after another, once too many have failed.
    turn: Mutex<()>,
}

impl Guest {
    fn new() -> Self {
        Self { failed: AtomicU32::new(0), waiting: Semaphore::new(WAITING), turn: Mutex::new(()) }
    }

    fn may_try(&self) -> bool {
        self.failed.load(Ordering::Relaxed) < MAX_FAILED_ATTEMPTS
    }
}

impl Authenticator {
    /// Remembers what it recognized for `remember`.
    pub fn new(store: Store, clock: Clock, remember: Duration) -> Self {
        let recognized = Recognized::new(CACHE_ENTRIES, remember);
        let minute = Duration::from_mins(1);
        let guests = Cache::builder().max_capacity(CACHE_ENTRIES).time_to_live(minute).build();
        Self { store, clock, recognized, guests }
    }

    /// Forgets who was recognized once a token was revoked, until the service stops.
    pub async fn follow_revocations(self, shutdown: Shutdown) {
        let mut seen = None;
        loop {
            match self.store.revocations().await {
                Ok(version) if seen == Some(version) => {}
                Ok(version) => {
                    self.recognized.forget();
                    seen = Some(version);
                }
                Err(error) if error.is_unavailable() => tracing::debug!(%error, "revocations cannot be asked for"),
                Err(error) => tracing::error!(
                    error = error.one_line(),
                    "revocations cannot be asked for: a revoked token is accepted"
                ),
            }
            tokio::select! {
                () = tokio::time::sleep(REVOCATION_ROUND) => {}
                () = shutdown.begun() => return,
            }
        }
    }

    /// The token of a request from `address`.
    pub async fn recognize(&self, headers: &HeaderMap, address: IpAddr) -> Result<Arc<ApiToken>, ApiError> {
        let token = bearer(headers).ok_or_else(|| {
            ApiError::unauthorized("Send a token as `Coder-Session-Token` or `Authorization: Bearer`.")
        })?;
        let sha256 = tokens::digest(token);
        let now = self.clock.now();
        let unknown = || ApiError::unauthorized("The token is unknown, expired or revoked.");
        if let Some(token) = self.recognized.get(&sha256).await {
            let expired = token.expires_at.is_some_and(|expires_at| expires_at <= now);
            return if expired { Err(unknown()) } else { Ok(token) };
        }
        // Behind a proxy all have one address. Whoever was here a while ago is not held up by a neighbour who guesses; who has
        // another token waits in the order in which all came, and is let in.
        let guest = self.guests.get_with(address, || Arc::new(Guest::new()));
        let may_try = guest.may_try() || self.recognized.knew(&sha256).await;
        let _turn = if may_try {
            None
        } else {
            let waiting = guest.waiting.try_acquire().map_err(|_| ApiError::too_many_attempts())?;
            let turn = guest.turn.lock().await;
            tokio::time::sleep(GUESSING_PAUSE).await;
            Some((turn, waiting))
        };
        let by_database = async { Ok::<_, StoreError>(self.store.api_token(&sha256, now).await?.map(Arc::new)) };
        let token = self.recognized.look_up(sha256.clone(), by_database).await?;
        token.ok_or_else(|| {
            metrics::counter!("connlog_query_failed_attempts_total").increment(1);
            guest.failed.fetch_add(1, Ordering::Relaxed);
            if may_try { unknown() } else { ApiError::too_many_attempts() }
        })
    }

    /// Whether the token of an answer that is still being given is valid. An outage of the database says nothing of it.
    pub async fn is_still_valid(&self, headers: &HeaderMap) -> bool {
        let (Some(token), now) = (bearer(headers), self.clock.now()) else { return false };
        match self.store.api_token(&tokens::digest(token), now).await {
            Ok(found) => found.is_some(),
            Err(_) => true,
        }
    }
}

/// Someone who may read the log.
pub struct Auditor(pub Arc<ApiToken>);

impl Auditor {
    /// What they may see.
    pub fn reach(&self) -> Reach {
        Reach { organizations: self.0.organizations.clone(), user_id: self.0.user_id }
    }
}

impl FromRequestParts<Service> for Auditor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, ApiError> {
        let address = peer(parts.extensions.get());
        let token = service.authenticator.recognize(&parts.headers, address).await?;
        if let Some(acquaintance) = parts.extensions.get::<Acquaintance>() {
            acquaintance.recognize();
        }
        if let Some(caller) = parts.extensions.get::<Caller>() {
            caller.is(Arc::clone(&token));
        }
        if token.role.may_read() { Ok(Self(token)) } else { Err(ApiError::forbidden()) }
    }
}

/// The address of whoever is connected: of a proxy, if there is one.
pub fn peer(address: Option<&ConnectInfo<PeerAddress>>) -> IpAddr {
    address.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(PeerAddress(address))| address.ip())
}

/// The first token that is there; an empty header is none.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let own = headers.get("coder-session-token").and_then(|value| value.to_str().ok());
    let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let cookies = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let cookie = cookies.filter(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token);
    own.into_iter().chain(authorization).chain(cookie).map(str::trim).find(|token| !token.is_empty())
}
