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
    tokens: Cache<Vec<u8>, Arc<ApiToken>>,
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
        let now = self.clock.now();
        let unknown = || ApiError::unauthorized("The token is unknown, expired or revoked.");
        if let Some(token) = self.tokens.get(&sha256).await {
            let expired = token.expires_at.is_some_and(|expires_at| expires_at <= now);
            return if expired { Err(unknown()) } else { Ok(token) };
        }
        // That a token is unknown is not remembered: it may be made any moment.
        let token = Arc::new(self.store.api_token(&sha256, now).await?.ok_or_else(unknown)?);
        self.tokens.insert(sha256, Arc::clone(&token)).await;
        Ok(token)
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
