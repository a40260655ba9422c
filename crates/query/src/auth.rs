//! Who asks: the bearer of an API token, from `Coder-Session-Token`, `Authorization: Bearer` or the cookie `coder_session_token`, or
//! of a session of the dashboard, from its cookie.
//!
//! Who was recognized is remembered for a short while, and forgotten once a token was revoked.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use chrono::TimeDelta;
use connlog_model::clock::{Clock, Timestamp};
use connlog_runtime::listen::PeerAddress;
use connlog_runtime::recognized::Recognized;
use connlog_runtime::shutdown::Shutdown;
use connlog_runtime::strangers::{Acquaintance, network_of};
use connlog_store::browser::{BrowserSession, Found, GRACE, Lifetimes, ListedSession, NewSession};
use connlog_store::read::Reach;
use connlog_store::tokens::{self, ApiToken};
use connlog_store::{Store, StoreError};
use moka::sync::Cache;
use tokio::sync::{Mutex, Semaphore};
use uuid::Uuid;

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
/// Pause between requests of an address that show no known token; how much of it may be saved up (200 requests); the longest wait.
const STRANGER_INTERVAL: Duration = Duration::from_millis(20);
const STRANGER_BURST: Duration = Duration::from_secs(4);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often it is asked whether a token was revoked.
const REVOCATION_ROUND: Duration = Duration::from_secs(2);
/// How long a session is remembered. Other replicas may accept an ended session for this long.
const SESSION_CACHE: Duration = Duration::from_secs(10);
/// The dashboard's cookie: without TLS, and with it.
const SESSION_COOKIE: &str = "connlog_session";
const SECURE_SESSION_COOKIE: &str = "__Host-connlog_session";
/// The cookie in which clients of Coder have their token.
const CODER_COOKIE: &str = "coder_session_token";

/// How callers are recognized.
#[derive(Debug, Clone, Copy)]
pub struct Recognition {
    /// How long a recognized token is remembered.
    pub remember: Duration,
    /// How long sessions of the dashboard last.
    pub lifetimes: Lifetimes,
    /// How old the secret of a session may be before it is renewed.
    pub renewal: TimeDelta,
    /// Whether the listener speaks TLS.
    pub is_secure: bool,
}

/// Recognizes tokens, and sessions of the dashboard.
#[derive(Clone)]
pub struct Authenticator {
    store: Store,
    clock: Clock,
    recognition: Recognition,
    tokens: Recognized<Arc<ApiToken>>,
    sessions: Recognized<Arc<BrowserSession>>,
    guests: Cache<IpAddr, Arc<Guest>>,
}

/// Whoever was recognized.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// What they may do.
    pub token: Arc<ApiToken>,
    by: Credential,
}

/// By what somebody was recognized, with its SHA-256.
#[derive(Debug, Clone)]
enum Credential {
    Token(Vec<u8>),
    Session(Arc<BrowserSession>, Vec<u8>),
}

/// What a request shows.
enum Shown<'a> {
    Token(&'a str),
    /// The secret of a session.
    Session(&'a str),
}

/// A secret for the cookie of a session.
pub(crate) struct SessionSecret {
    pub(crate) secret: String,
    pub(crate) expires_at: Timestamp,
}

/// An address from which tokens are looked up.
struct Guest {
    /// Attempts that failed within the last minute.
    failed: AtomicU32,
    waiting: Semaphore,
    /// One look-up after another, once too many have failed.
    turn: Mutex<()>,
    /// When the next request without a known token has its turn.
    next_stranger: std::sync::Mutex<Instant>,
    /// One look-up after another of those that would wait too long.
    late: Mutex<()>,
}

impl Guest {
    fn new() -> Self {
        Self {
            failed: AtomicU32::new(0),
            waiting: Semaphore::new(WAITING),
            turn: Mutex::new(()),
            next_stranger: std::sync::Mutex::new(
                Instant::now().checked_sub(STRANGER_BURST).unwrap_or_else(Instant::now),
            ),
            late: Mutex::new(()),
        }
    }

    /// How long a request without a known token waits for its turn; none if there are too many before it.
    fn wait_of_stranger(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut next = self.next_stranger.lock().expect("nobody panics while holding a time");
        let turn = (*next).max(now.checked_sub(STRANGER_BURST).unwrap_or(now));
        let wait = turn.saturating_duration_since(now);
        if wait > LONGEST_WAIT {
            return None;
        }
        *next = turn + STRANGER_INTERVAL;
        Some(wait)
    }

    fn may_try(&self) -> bool {
        self.failed.load(Ordering::Relaxed) < MAX_FAILED_ATTEMPTS
    }
}

impl Authenticator {
    /// Recognizes by what is in `store`.
    pub fn new(store: Store, clock: Clock, recognition: Recognition) -> Self {
        let minute = Duration::from_mins(1);
        Self {
            store,
            clock,
            recognition,
            tokens: Recognized::new(CACHE_ENTRIES, recognition.remember),
            sessions: Recognized::new(CACHE_ENTRIES, recognition.remember.min(SESSION_CACHE)),
            guests: Cache::builder().max_capacity(CACHE_ENTRIES).time_to_live(minute).build(),
        }
    }

    /// Forgets who was recognized once a token was revoked, until the service stops.
    pub async fn follow_revocations(self, shutdown: Shutdown) {
        let mut seen = None;
        loop {
            match self.store.revocations().await {
                Ok(version) if seen == Some(version) => {}
                Ok(version) => {
                    self.tokens.forget();
                    self.sessions.forget();
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

    /// Who makes a request from `address`.
    pub async fn recognize(&self, method: &Method, headers: &HeaderMap, address: IpAddr) -> Result<Bearer, ApiError> {
        match self.shown(method, headers) {
            Some(Shown::Token(token)) => self.recognize_token(token, address).await,
            Some(Shown::Session(secret)) => match (self.recognize_session(secret).await, coder_cookie(method, headers))
            {
                (Err(error), Some(token)) if error.status() == StatusCode::UNAUTHORIZED => {
                    self.recognize_token(token, address).await
                }
                (recognized, _) => recognized,
            },
            None => Err(ApiError::unauthorized("Send a token as `Coder-Session-Token` or `Authorization: Bearer`.")),
        }
    }

    fn guest(&self, address: IpAddr) -> Arc<Guest> {
        self.guests.get_with(network_of(address), || Arc::new(Guest::new()))
    }

    /// Waits until it is the turn of a request that shows no known token. False if too many are before it, unless its token is a good one.
    async fn wait_as_stranger(&self, method: &Method, headers: &HeaderMap, address: IpAddr) -> bool {
        let shown = self.shown(method, headers);
        let is_known = match shown {
            Some(Shown::Token(token)) => self.tokens.knew(&tokens::digest(token)).await,
            Some(Shown::Session(secret)) => {
                let coder = coder_cookie(method, headers).map(tokens::digest).unwrap_or_default();
                self.sessions.knew(&tokens::digest(secret)).await || self.tokens.knew(&coder).await
            }
            None => false,
        };
        if is_known {
            return true;
        }
        let guest = self.guest(address);
        if let Some(wait) = guest.wait_of_stranger() {
            tokio::time::sleep(wait).await;
            return true;
        }
        if shown.is_none() {
            return false;
        }
        // However many others come by the same proxy, a good token is let in.
        let _turn = guest.late.lock().await;
        match self.recognize(method, headers, address).await {
            Ok(_) => true,
            Err(error) => error.status() == StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Who has a token.
    pub(crate) async fn recognize_token(&self, token: &str, address: IpAddr) -> Result<Bearer, ApiError> {
        let (sha256, now) = (tokens::digest(token), self.clock.now());
        let token = self.look_up(&sha256, address, now).await?;
        if token.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(unknown());
        }
        Ok(Bearer { token, by: Credential::Token(sha256) })
    }

    /// Nobody guesses 256 bits, and browsers come back with cookies of sessions that are over: an unknown secret is no failed attempt.
    async fn recognize_session(&self, secret: &str) -> Result<Bearer, ApiError> {
        let (sha256, now, lifetimes) = (tokens::digest(secret), self.clock.now(), self.recognition.lifetimes);
        let mut found = self.sessions.get(&sha256).await;
        if found.is_none() {
            let by_database = async {
                Ok::<_, StoreError>(match self.store.browser_session(&sha256, lifetimes, now).await? {
                    Found::Session(session) => Some(Arc::new(session)),
                    Found::Nothing => None,
                    Found::Copied => {
                        self.sessions.forget();
                        None
                    }
                })
            };
            found = self.sessions.look_up(sha256.clone(), by_database).await?;
        }
        let session = found.filter(|session| session.expires_at > now).ok_or_else(unknown)?;
        Ok(Bearer { token: Arc::clone(&session.token), by: Credential::Session(session, sha256) })
    }

    /// A token that was recognized a short while ago, or else is by the database.
    async fn look_up(&self, sha256: &Vec<u8>, address: IpAddr, now: Timestamp) -> Result<Arc<ApiToken>, ApiError> {
        if let Some(found) = self.tokens.get(sha256).await {
            return Ok(found);
        }
        // Behind a proxy all have one address. Whoever was here a while ago is not held up by a neighbour who guesses; who has
        // another token waits in the order in which all came, and is let in.
        let guest = self.guest(address);
        let may_try = guest.may_try() || self.tokens.knew(sha256).await;
        let _turn = if may_try {
            None
        } else {
            let waiting = guest.waiting.try_acquire().map_err(|_| ApiError::too_many_attempts())?;
            let turn = guest.turn.lock().await;
            tokio::time::sleep(GUESSING_PAUSE).await;
            Some((turn, waiting))
        };
        let by_database = async { Ok::<_, StoreError>(self.store.api_token(sha256, now).await?.map(Arc::new)) };
        self.tokens.look_up(sha256.clone(), by_database).await?.ok_or_else(|| {
            metrics::counter!("connlog_query_failed_attempts_total").increment(1);
            guest.failed.fetch_add(1, Ordering::Relaxed);
            if may_try { unknown() } else { ApiError::too_many_attempts() }
        })
    }

    /// Whether a bearer to whom an answer is still being given would be recognized. An outage of the database says nothing of it.
    pub async fn is_still_valid(&self, bearer: &Bearer) -> bool {
        let now = self.clock.now();
        let found = match &bearer.by {
            Credential::Token(sha256) => self.store.api_token(sha256, now).await.map(|token| token.is_some()),
            Credential::Session(session, _) => {
                self.store.browser_session_is_valid(session.id, self.recognition.lifetimes, now).await
            }
        };
        found.unwrap_or(true)
    }

    /// Begins a session of the dashboard for the bearer of a token.
    pub(crate) async fn begin_session(
        &self,
        bearer: &Bearer,
        address: IpAddr,
        user_agent: &str,
    ) -> Result<SessionSecret, ApiError> {
        let secret = tokens::secret();
        let sha256 = tokens::digest(&secret);
        let new = NewSession { sha256: &sha256, token: &bearer.token, address, user_agent };
        let expires_at = self.store.begin_browser_session(&new, self.recognition.lifetimes, self.clock.now()).await?;
        self.sessions.note(sha256).await;
        Ok(SessionSecret { secret, expires_at })
    }

    /// Another secret for a session, if it is time for one.
    pub(crate) async fn renew(&self, bearer: &Bearer) -> Option<SessionSecret> {
        let Credential::Session(session, sha256) = &bearer.by else { return None };
        let now = self.clock.now();
        // A browser that did not get the last one has another soon.
        let age = if session.is_newest { self.recognition.renewal } else { GRACE };
        if session.renewed_at + age > now {
            return None;
        }
        let secret = tokens::secret();
        let (to, due) = (tokens::digest(&secret), now - self.recognition.renewal);
        match self.store.renew_browser_session(session.id, sha256, &to, due, now).await {
            Ok(true) => {
                self.sessions.note(to).await;
                Some(SessionSecret { secret, expires_at: session.expires_at })
            }
            Ok(false) => None,
            Err(error) => {
                tracing::warn!(error = error.one_line(), "the secret of a session could not be renewed");
                None
            }
        }
    }

    /// The sessions of a bearer's user, the one used last first, and which of them is the bearer's own.
    pub(crate) async fn sessions(&self, bearer: &Bearer) -> Result<(Vec<ListedSession>, Option<Uuid>), StoreError> {
        let (lifetimes, now) = (self.recognition.lifetimes, self.clock.now());
        Ok((self.store.browser_sessions(&bearer.token, lifetimes, now).await?, bearer.session()))
    }

    /// Ends one of these sessions, or all but `except`.
    pub(crate) async fn end_sessions(
        &self,
        bearer: &Bearer,
        only: Option<Uuid>,
        except: Option<Uuid>,
    ) -> Result<u64, StoreError> {
        let ended = self.store.end_browser_sessions(&bearer.token, only, except).await?;
        self.sessions.forget();
        Ok(ended)
    }

    /// How long sessions last.
    pub(crate) fn lifetimes(&self) -> Lifetimes {
        self.recognition.lifetimes
    }

    /// The session of the cookie that a browser sends, whatever else it sends.
    pub(crate) async fn session_of(&self, headers: &HeaderMap) -> Result<Option<Bearer>, ApiError> {
        let Some(secret) = filled(cookie(headers, self.session_cookie(headers))) else { return Ok(None) };
        match self.recognize_session(secret).await {
            Ok(bearer) => Ok(Some(bearer)),
            Err(error) if error.status() == StatusCode::UNAUTHORIZED => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The first credential that is there; an empty one is none.
    fn shown<'a>(&self, method: &Method, headers: &'a HeaderMap) -> Option<Shown<'a>> {
        let own = headers.get("coder-session-token").and_then(|value| value.to_str().ok());
        let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        let session = cookie(headers, self.session_cookie(headers));
        let token = filled(own).or_else(|| filled(authorization)).map(Shown::Token);
        let session = || filled(session).map(Shown::Session);
        token.or_else(session).or_else(|| coder_cookie(method, headers).map(Shown::Token))
    }

    /// Whether a request came by TLS, to this service or to a proxy before it.
    pub(crate) fn came_by_tls(&self, headers: &HeaderMap) -> bool {
        self.recognition.is_secure || headers.get("x-forwarded-proto").is_some_and(|value| value == "https")
    }

    /// The name of the session's cookie. Only this host can set one that begins with `__Host-`, and browsers take it by TLS alone.
    pub(crate) fn session_cookie(&self, headers: &HeaderMap) -> &'static str {
        if self.came_by_tls(headers) { SECURE_SESSION_COOKIE } else { SESSION_COOKIE }
    }
}

impl Bearer {
    /// The session by which somebody was recognized.
    pub(crate) fn session(&self) -> Option<Uuid> {
        match &self.by {
            Credential::Session(session, _) => Some(session.id),
            Credential::Token(_) => None,
        }
    }

    /// What they may see.
    pub fn reach(&self) -> Reach {
        Reach { organizations: self.token.organizations.clone(), user_id: self.token.user_id }
    }
}

/// Counts for GET and HEAD only: browsers send it along with other sites' forms.
fn coder_cookie<'a>(method: &Method, headers: &'a HeaderMap) -> Option<&'a str> {
    filled(cookie(headers, CODER_COOKIE)).filter(|_| matches!(*method, Method::GET | Method::HEAD))
}

fn filled(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

fn unknown() -> ApiError {
    ApiError::unauthorized("The token is unknown, expired or revoked.")
}

/// Someone who may read the log.
pub struct Auditor(pub Bearer);

impl Auditor {
    /// What they may see.
    pub fn reach(&self) -> Reach {
        self.0.reach()
    }
}

impl FromRequestParts<Service> for Auditor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, ApiError> {
        let address = peer(parts.extensions.get());
        let bearer = service.authenticator.recognize(&parts.method, &parts.headers, address).await?;
        if let Some(acquaintance) = parts.extensions.get::<Acquaintance>() {
            acquaintance.recognize();
        }
        if let Some(caller) = parts.extensions.get::<Caller>() {
            caller.is(bearer.clone());
        }
        if bearer.token.role.may_read() { Ok(Self(bearer)) } else { Err(ApiError::forbidden()) }
    }
}

/// Lets a request go on when it is its turn: whoever shows no known token gets so many pages a second. Making them costs time, whether
/// or not anybody reads them.
pub(crate) async fn paced(State(service): State<Service>, request: Request, next: Next) -> Response {
    let address = peer(request.extensions().get());
    // Forms have bounds of their own, and the one for signing in brings its token along.
    let is_form = request.method() == Method::POST;
    if is_form || service.authenticator.wait_as_stranger(request.method(), request.headers(), address).await {
        return next.run(request).await;
    }
    metrics::counter!("connlog_query_refused_total", "kind" => "strangers").increment(1);
    ApiError::too_many_requests().into_response()
}

/// The address of whoever is connected: of a proxy, if there is one.
pub fn peer(address: Option<&ConnectInfo<PeerAddress>>) -> IpAddr {
    address.map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(PeerAddress(address))| address.ip())
}

/// The value of a cookie.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}
