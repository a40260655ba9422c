//! Who is calling: an agent by its token, or the bearer of an API token.
//!
//! Recognized tokens are remembered for a short while, so that an outage of the database does not lock agents out at once, and
//! forgotten once one was revoked.

use std::sync::Arc;
use std::time::Duration;

use connlog_model::clock::Clock;
use connlog_model::identity::AgentIdentity;
use connlog_runtime::recognized::Recognized;
use connlog_store::agents::AgentToken;
use connlog_store::tokens::{self, ApiToken};
use connlog_store::{Store, StoreError};
use moka::future::Cache;
use tonic::codegen::http::HeaderMap;
use tonic::{Request, Status};
use uuid::Uuid;

/// Most tokens and agents that are remembered.
const CACHE_ENTRIES: u64 = 100_000;

/// The bearer of a recognized token.
#[derive(Debug, Clone)]
pub enum Caller {
    /// An agent, by its token.
    Agent(AgentToken),
    /// The bearer of an API token.
    Api(Arc<ApiToken>),
}

/// Recognizes callers.
#[derive(Clone)]
pub struct Authenticator {
    store: Store,
    clock: Clock,
    recognized: Recognized<Caller>,
    agents: Cache<(Uuid, String), Arc<AgentIdentity>>,
}

impl Authenticator {
    /// Remembers what it recognized for `remember`.
    pub fn new(store: Store, clock: Clock, remember: Duration) -> Self {
        let recognized = Recognized::new(CACHE_ENTRIES, remember);
        let agents = Cache::builder().max_capacity(CACHE_ENTRIES).time_to_live(remember).build();
        Self { store, clock, recognized, agents }
    }

    /// The agent that a reporter names, if the directory knows the workspace. That it does not is not remembered: it may
    /// be told any moment.
    pub async fn agent_by_name(
        &self,
        workspace_id: Uuid,
        name: &str,
    ) -> Result<Option<Arc<AgentIdentity>>, StoreError> {
        let key = (workspace_id, name.to_owned());
        if let Some(agent) = self.agents.get(&key).await {
            return Ok(Some(agent));
        }
        let found = self.store.agent_by_name(workspace_id, name).await?;
        if let Some(agent) = &found {
            self.agents.insert(key, Arc::clone(agent)).await;
        }
        Ok(found)
    }

    /// The digest of the token that a request has; none if it has none.
    pub(crate) fn digest(headers: &HeaderMap) -> Option<Vec<u8>> {
        bearer(headers).map(tokens::digest)
    }

    /// The callers that were recognized a short while ago.
    pub(crate) fn recognized(&self) -> &Recognized<Caller> {
        &self.recognized
    }

    /// The bearer of a token, by the database.
    pub(crate) async fn look_up(&self, sha256: Vec<u8>) -> Result<Option<Caller>, StoreError> {
        let (store, now, token) = (&self.store, self.clock.now(), sha256.clone());
        let by_database = async move {
            Ok(match store.agent_by_token(&token, now).await? {
                Some(token) => Some(Caller::Agent(token)),
                None => store.api_token(&token, now).await?.map(|token| Caller::Api(Arc::new(token))),
            })
        };
        self.recognized.look_up(sha256, by_database).await
    }
}

impl Caller {
    /// Names the agent or the token.
    pub(crate) fn id(&self) -> Uuid {
        match self {
            Self::Agent(AgentToken { agent, .. }) => agent.agent_id.unwrap_or(agent.workspace.workspace_id),
            Self::Api(token) => token.id,
        }
    }
}

/// The token of the agent that calls, as the door recognized it. An API token is not an agent's.
pub(crate) fn agent<T>(request: &Request<T>) -> Result<AgentToken, Status> {
    match request.extensions().get() {
        Some(Caller::Agent(token)) => Ok(token.clone()),
        _ => Err(Status::permission_denied("this call is for agents; the token is not an agent's")),
    }
}

/// The bearer of an API token that may report. An agent's token is none.
pub(crate) fn reporter<T>(request: &Request<T>) -> Result<Arc<ApiToken>, Status> {
    match request.extensions().get() {
        Some(Caller::Api(token)) if token.role.may_report() => Ok(Arc::clone(token)),
        _ => Err(Status::permission_denied("this call needs a token of role reporter or admin")),
    }
}

/// Whether the bearer of an API token may change the directory.
pub(crate) fn directory_keeper<T>(request: &Request<T>) -> Result<(), Status> {
    match request.extensions().get() {
        Some(Caller::Api(token)) if token.role.may_keep_directory() && token.organizations.is_none() => Ok(()),
        _ => {
            let needed = "this call needs a token of role admin that is not limited to organizations";
            Err(Status::permission_denied(needed))
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get("coder-session-token") {
        return value.to_str().ok().map(str::trim).filter(|token| !token.is_empty());
    }
    let value = headers.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then_some(token.trim())
}
