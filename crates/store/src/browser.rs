//! Sessions of the dashboard. Each stands for the token with which somebody signed in, and is found by a random secret in a cookie.
//!
//! A session gets a new secret from time to time. A browser may lose the answer that has it, and requests overtake each other: so the
//! secret before stays good until a newer one was seen, and for [`GRACE`] after. A secret that comes later than that is a copy, or the
//! browser's own is: the session ends.

use std::net::IpAddr;
use std::sync::Arc;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::session::{begin_write, execute, query};
use crate::tokens::{ApiToken, api_token};
use crate::{Store, StoreError};

/// How long a secret is good once a newer one was seen, and how long a new one may stay unseen before there is another.
pub const GRACE: TimeDelta = TimeDelta::minutes(1);
/// `seen_at` of a session is as exact as this.
const SEEN_INTERVAL: TimeDelta = TimeDelta::minutes(1);
/// Most sessions of one token; beyond it the one that was not used for longest ends.
const MOST_OF_TOKEN: i64 = 100;
/// How long a replaced secret is remembered, to tell a copy from a guess.
const REPLACED_FOR: TimeDelta = TimeDelta::days(1);
/// Characters of a user agent that are kept.
const USER_AGENT_CHARS: usize = 300;

/// How long sessions last.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// Without a use.
    pub idle: TimeDelta,
    /// In all.
    pub all: TimeDelta,
}

/// What a secret leads to.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A session that ended just now: somebody used a secret that had been replaced.
    Copied,
    /// A session.
    Session(BrowserSession),
}

/// A session that was found by one of its secrets.
#[derive(Debug, Clone)]
pub struct BrowserSession {
    /// Names the session without being its secret.
    pub id: Uuid,
    /// The token that it stands for.
    pub token: Arc<ApiToken>,
    /// When the newest secret was made.
    pub renewed_at: Timestamp,
    /// Whether that is the one by which the session was found.
    pub is_newest: bool,
    /// When the session ends, however much it is used.
    pub expires_at: Timestamp,
}

/// A session that begins.
#[derive(Debug)]
pub struct NewSession<'a> {
    /// The SHA-256 of its secret.
    pub sha256: &'a [u8],
    /// Who signed in.
    pub token: &'a ApiToken,
    /// From where.
    pub address: IpAddr,
    /// With what, as the browser says.
    pub user_agent: &'a str,
}

/// A session as its user sees it in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSession {
    /// Names it.
    pub id: Uuid,
    /// When somebody signed in.
    pub started_at: Timestamp,
    /// When it was used last, to a minute.
    pub seen_at: Timestamp,
    /// When it ends, however much it is used.
    pub expires_at: Timestamp,
    /// From where somebody signed in.
    pub address: IpAddr,
    /// With what, as the browser said.
    pub user_agent: String,
}

const END_OLD: &str = "-- end_old_browser_sessions
DELETE FROM browser_sessions
WHERE expires_at <= $2 OR seen_at <= $3
    OR id IN (SELECT id FROM browser_sessions WHERE token_id = $1 ORDER BY seen_at DESC, id OFFSET $4)";

const BEGIN: &str = "-- begin_browser_session
INSERT INTO browser_sessions (id, token_id, started_at, seen_at, expires_at, ip, user_agent) VALUES ($1, $2, $3, $3, $4, $5, $6)";

const ADD_SECRET: &str = "-- add_browser_secret
INSERT INTO browser_secrets (sha256, session_id, made_at) VALUES ($1, $2, $3)";

const FIND: &str = "-- browser_session
SELECT s.id AS session_id, s.seen_at, s.expires_at AS session_expires_at, k.made_at, k.seen_at IS NULL AS is_new,
    newer.made_at AS newer_made_at, newer.seen_at AS newer_seen_at,
    t.id, t.role, t.user_id, t.organizations, t.created_at, t.expires_at, t.revoked_at
FROM browser_secrets AS k JOIN browser_sessions AS s ON s.id = k.session_id JOIN api_tokens AS t ON t.id = s.token_id
    CROSS JOIN LATERAL (
        SELECT max(made_at) AS made_at, min(seen_at) AS seen_at FROM browser_secrets WHERE session_id = s.id AND made_at > k.made_at
    ) AS newer
WHERE k.sha256 = $1 AND s.expires_at > $2 AND s.seen_at > $3
    AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $2)";

const SEE_SECRET: &str = "-- see_browser_secret
UPDATE browser_secrets SET seen_at = $2 WHERE sha256 = $1 AND seen_at IS NULL";

const SEE: &str = "-- see_browser_session
UPDATE browser_sessions SET seen_at = $2 WHERE id = $1 AND seen_at < $2";

/// Whoever renews a session holds it.
const HOLD: &str = "-- hold_browser_session
SELECT FROM browser_sessions WHERE id = $1 FOR UPDATE";

const NEWEST: &str = "-- newest_browser_secret
SELECT sha256 = $2, made_at, seen_at IS NOT NULL FROM browser_secrets WHERE session_id = $1 ORDER BY made_at DESC LIMIT 1";

const FORGET_REPLACED: &str = "-- forget_replaced_browser_secrets
DELETE FROM browser_secrets WHERE session_id = $1 AND sha256 <> $2 AND made_at < $3";

const IS_VALID: &str = "-- browser_session_is_valid
SELECT FROM browser_sessions AS s JOIN api_tokens AS t ON t.id = s.token_id
WHERE s.id = $1 AND s.expires_at > $2 AND s.seen_at > $3
    AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $2)";

/// A session belongs to the token's user, or to the token if it has no user.
const LIST: &str = "-- browser_sessions_of
SELECT s.id, s.started_at, s.seen_at, s.expires_at, s.ip, s.user_agent
FROM browser_sessions AS s JOIN api_tokens AS t ON t.id = s.token_id
WHERE (s.token_id = $1 OR t.user_id = $2) AND s.expires_at > $3 AND s.seen_at > $4
    AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $3)
ORDER BY s.seen_at DESC, s.id";

const END: &str = "-- end_browser_sessions
DELETE FROM browser_sessions AS s USING api_tokens AS t
WHERE t.id = s.token_id AND (s.token_id = $1 OR t.user_id = $2) AND ($3::uuid IS NULL OR s.id = $3) AND s.id IS DISTINCT FROM $4";

const END_ONE: &str = "-- end_browser_session
DELETE FROM browser_sessions WHERE id = $1";

impl Store {
    /// Begins a session, and returns when it ends at the latest: with the token, or after `lifetimes`. Removes sessions that are over,
    /// and those of the token that are too many.
    pub async fn begin_browser_session(
        &self,
        new: &NewSession<'_>,
        lifetimes: Lifetimes,
        now: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let expires_at = new.token.expires_at.unwrap_or(Timestamp::MAX_UTC).min(now + lifetimes.all);
        let user_agent: String = new.user_agent.chars().filter(|c| *c != '\0').take(USER_AGENT_CHARS).collect();
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        execute(&transaction, END_OLD, &[&new.token.id, &now, &(now - lifetimes.idle), &(MOST_OF_TOKEN - 1)]).await?;
        let id = Uuid::new_v4();
        execute(&transaction, BEGIN, &[&id, &new.token.id, &now, &expires_at, &new.address, &user_agent]).await?;
        execute(&transaction, ADD_SECRET, &[&new.sha256, &id, &now]).await?;
        transaction.commit().await?;
        Ok(expires_at)
    }

    /// The session of a secret, unless it is over; notes that it is used.
    pub async fn browser_session(
        &self,
        sha256: &[u8],
        lifetimes: Lifetimes,
        now: Timestamp,
    ) -> Result<Found, StoreError> {
        let mut client = self.client().await?;
        let Some(row) = client.query_opt(FIND, &[&sha256, &now, &(now - lifetimes.idle)]).await? else {
            return Ok(Found::Nothing);
        };
        let (id, made_at): (Uuid, Timestamp) = (row.try_get("session_id")?, row.try_get("made_at")?);
        let newer_seen_at: Option<Timestamp> = row.try_get("newer_seen_at")?;
        if newer_seen_at.is_some_and(|seen_at| seen_at + GRACE <= now) {
            client.execute(END_ONE, &[&id]).await?;
            tracing::warn!(session = %id, "a secret that had been replaced was used, so somebody probably has a copy: the session is ended");
            metrics::counter!("connlog_query_copied_sessions_total").increment(1);
            return Ok(Found::Copied);
        }
        let (seen_at, is_new): (Timestamp, bool) = (row.try_get("seen_at")?, row.try_get("is_new")?);
        if is_new || seen_at + SEEN_INTERVAL <= now {
            let transaction = begin_write(&mut client).await?;
            execute(&transaction, SEE, &[&id, &now]).await?;
            execute(&transaction, SEE_SECRET, &[&sha256, &now]).await?;
            transaction.commit().await?;
        }
        let newer_made_at: Option<Timestamp> = row.try_get("newer_made_at")?;
        Ok(Found::Session(BrowserSession {
            id,
            renewed_at: newer_made_at.unwrap_or(made_at),
            is_newest: newer_made_at.is_none(),
            expires_at: row.try_get("session_expires_at")?,
            token: Arc::new(api_token(&row)?),
        }))
    }

    /// Gives a session another secret, if its newest is the one it was found by and was made before `due`, or was not seen for
    /// [`GRACE`]. False if somebody else just did.
    pub async fn renew_browser_session(
        &self,
        id: Uuid,
        from: &[u8],
        to: &[u8],
        due: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let transaction = begin_write(&mut client).await?;
        query(&transaction, HOLD, &[&id]).await?;
        let newest = query(&transaction, NEWEST, &[&id, &from]).await?;
        let Some(row) = newest.first() else { return Ok(false) };
        let (is_newest, made_at, was_seen): (bool, Timestamp, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if made_at > if is_newest { due } else { now - GRACE } || (!is_newest && was_seen) {
            return Ok(false);
        }
        execute(&transaction, ADD_SECRET, &[&to, &id, &now]).await?;
        execute(&transaction, FORGET_REPLACED, &[&id, &from, &(now - REPLACED_FOR)]).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Whether a session goes on.
    pub async fn browser_session_is_valid(
        &self,
        id: Uuid,
        lifetimes: Lifetimes,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let client = self.client().await?;
        Ok(client.query_opt(IS_VALID, &[&id, &now, &(now - lifetimes.idle)]).await?.is_some())
    }

    /// The sessions of a token's user, or of the token alone if it has no user. The one that was used last comes first.
    pub async fn browser_sessions(
        &self,
        token: &ApiToken,
        lifetimes: Lifetimes,
        now: Timestamp,
    ) -> Result<Vec<ListedSession>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(LIST, &[&token.id, &token.user_id, &now, &(now - lifetimes.idle)]).await?;
        rows.iter().map(listed).collect()
    }

    /// Ends one of these sessions, or all but `except`. Returns how many.
    pub async fn end_browser_sessions(
        &self,
        token: &ApiToken,
        only: Option<Uuid>,
        except: Option<Uuid>,
    ) -> Result<u64, StoreError> {
        let client = self.client().await?;
        Ok(client.execute(END, &[&token.id, &token.user_id, &only, &except]).await?)
    }
}

fn listed(row: &Row) -> Result<ListedSession, StoreError> {
    Ok(ListedSession {
        id: row.try_get("id")?,
        started_at: row.try_get("started_at")?,
        seen_at: row.try_get("seen_at")?,
        expires_at: row.try_get("expires_at")?,
        address: row.try_get("ip")?,
        user_agent: row.try_get("user_agent")?,
    })
}
