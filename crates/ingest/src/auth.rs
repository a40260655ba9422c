//! Who is calling: an agent by its token, or the bearer of an API token.
//!
//! Recognized tokens are remembered for a short while, so that a revoked one stops working within a minute and an outage
//! of the database does not lock agents out at once.

use std::sync::Arc;
use std::time::Duration;

use connlog_model::clock::Clock;
use connlog_model::identity::AgentIdentity;
use connlog_store::tokens::{self, ApiToken};
use connlog_store::{Store, StoreError};
use moka::future::Cache;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};
use uuid::Uuid;

/// Most tokens and agents that are remembered.
const CACHE_ENTRIES: u64 = 100_000;

/// The bearer of a recognized token.
#[derive(Debug, Clone)]
pub enum Caller {
    /// An agent.
    Agent(Arc<AgentIdentity>),
    /// The bearer of an API token.
    Api(Arc<ApiToken>),
}

/// Recognizes callers.
#[derive(Clone)]
pub struct Authenticator {
    store: Store,
    clock: Clock,
    callers: Cache<Vec<u8>, Caller>,
    agents: Cache<(Uuid, String), Arc<AgentIdentity>>,
}

impl Authenticator {
    /// Remembers what it recognized for `remember`.
    pub fn new(store: Store, clock: Clock, remember: Duration) -> Self {
        let callers = Cache::builder().max_capacity(CACHE_ENTRIES).time_to_live(remember).build();
        let agents = Cache::builder().max_capacity(CACHE_ENTRIES).time_to_live(remember).build();
        Self { store, clock, callers, agents }
    }

    /// The agent that calls. An API token is not an agent's.
    pub async fn agent<T>(&self, request: &Request<T>) -> Result<Arc<AgentIdentity>, Status> {
        match self.caller(request.metadata()).await? {
            Caller::Agent(agent) => Ok(agent),
            Caller::Api(_) => Err(Status::permission_denied("this call is for agents; the token is not an agent's")),
        }
    }

    /// The bearer of an API token that may report. An agent's token is none.
    pub async fn reporter<T>(&self, request: &Request<T>) -> Result<Arc<ApiToken>, Status> {
        match self.caller(request.metadata()).await? {
            Caller::Api(token) if token.role.may_report() => Ok(token),
            _ => Err(Status::permission_denied("this call needs a token of role reporter or admin")),
        }
    }

    /// The bearer of an API token that may change the directory.
    pub async fn directory_keeper<T>(&self, request: &Request<T>) -> Result<Arc<ApiToken>, Status> {
        match self.caller(request.metadata()).await? {
            Caller::Api(token) if token.role.may_keep_directory() && token.organizations.is_none() => Ok(token),
            _ => Err(Status::permission_denied(
                "this call needs a token of role admin that is not limited to organizations",
            )),
        }
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

    async fn caller(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let token = bearer(metadata).ok_or_else(|| {
            Status::unauthenticated("a token is needed, as `authorization: Bearer …` or `coder-session-token`")
        })?;
        let sha256 = tokens::digest(token);
        if let Some(caller) = self.callers.get(&sha256).await {
            return Ok(caller);
        }
        let found = self.look_up(sha256.clone()).await.map_err(|error| crate::grpc::status(&error))?;
        let caller = found.ok_or_else(|| Status::unauthenticated("the token is unknown, expired or revoked"))?;
        self.callers.insert(sha256, caller.clone()).await;
        Ok(caller)
    }

    async fn look_up(&self, sha256: Vec<u8>) -> Result<Option<Caller>, StoreError> {
        let now = self.clock.now();
        if let Some(agent) = self.store.agent_by_token(&sha256, now).await? {
            return Ok(Some(Caller::Agent(agent)));
        }
        Ok(self.store.api_token(&sha256, now).await?.map(|token| Caller::Api(Arc::new(token))))
    }
}

fn bearer(metadata: &MetadataMap) -> Option<&str> {
    if let Some(value) = metadata.get("coder-session-token") {
        return value.to_str().ok().map(str::trim).filter(|token| !token.is_empty());
    }
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then_some(token.trim())
}
