//! Who asks: the bearer of an API token, from `Coder-Session-Token`, `Authorization: Bearer`, or the dashboard's cookie.
//!
//! Recognized tokens are remembered for a short while, so a revoked one stops working within a minute.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use connlog_model::clock::Clock;
use connlog_store::Store;
use connlog_store::read::Reach;
use connlog_store::tokens::{self, ApiToken};
use moka::future::Cache;

use crate::error::ApiError;
use crate::serve::Service;

/// Most tokens that are remembered.
const CACHE_ENTRIES: u64 = 10_000;
/// The dashboard's cookie.
pub const SESSION_COOKIE: &str = "connlog_session";

/// Recognizes tokens.
#[derive(Clone)]
pub struct Authenticator {
    store: Store,
    clock: Clock,
    tokens: Cache<Vec<u8>, Option<Arc<ApiToken>>>,
}

impl Authenticator {
    /// Remembers what it recognized for `remember`.
    pub fn new(store: Store, clock: Clock, remember: Duration) -> Self {
        let tokens = Cache::builder().max_capacity(CACHE_ENTRIES).time_to_live(remember).build();
        Self { store, clock, tokens }
    }

    async fn recognize(&self, headers: &HeaderMap) -> Result<Arc<ApiToken>, ApiError> {
        let token = bearer(headers).ok_or_else(|| {
            ApiError::unauthorized("Send a token as `Coder-Session-Token` or `Authorization: Bearer`.")
        })?;
        let sha256 = tokens::digest(token);
        let token = if let Some(token) = self.tokens.get(&sha256).await {
            token
        } else {
            let token = self.store.api_token(&sha256, self.clock.now()).await?.map(Arc::new);
            self.tokens.insert(sha256, token.clone()).await;
            token
        };
        let now = self.clock.now();
        token
            .filter(|token| token.expires_at.is_none_or(|expires_at| expires_at > now))
            .ok_or_else(|| ApiError::unauthorized("The token is unknown, expired or revoked."))
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
        let token = service.authenticator.recognize(&parts.headers).await?;
        if token.role.may_read() { Ok(Self(token)) } else { Err(ApiError::forbidden()) }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let not_empty = |token: &&str| !token.is_empty();
    if let Some(value) = headers.get("coder-session-token") {
        return value.to_str().ok().map(str::trim).filter(not_empty);
    }
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return Some(token.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer")).filter(not_empty);
    }
    let cookies = headers.get(COOKIE)?.to_str().ok()?;
    let pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token).find(not_empty)
}
