//! Small directories and events for tests.

use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use chrono::Utc;
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_model::event::{Action, AgentEvent, Client, Event, Outcome, Source, WebEvent};
use connlog_model::identity::{AgentIdentity, Workspace};
use connlog_model::method::Method;
use connlog_model::role::Role;
use connlog_store::directory::{DirectoryEntry, Import};
use connlog_store::tokens::{self, ApiToken};
use connlog_store::{Store, StoreError};
use uuid::Uuid;

/// The time now, as exact as the log keeps it.
pub fn now() -> Timestamp {
    truncate_to_micros(Utc::now())
}

/// Imports directory entries in one transaction.
pub async fn import(store: &Store, entries: &[DirectoryEntry], now: Timestamp) -> Result<(), StoreError> {
    let mut connection = store.import_connection().await?;
    let mut import = Import::begin(&mut connection, now).await?;
    for entry in entries {
        import.apply(entry).await?;
    }
    import.commit().await
}

/// A workspace with one agent, its owner and its organization, and the token of the agent.
#[derive(Debug, Clone)]
pub struct Site {
    /// The agent.
    pub agent: Arc<AgentIdentity>,
    /// Its token.
    pub token: String,
    /// The entries that make it known.
    pub directory: Vec<DirectoryEntry>,
}

/// A site whose ids follow from `number`, in organization `organization`.
pub fn site(number: u128, organization: u128) -> Site {
    let organization_id = Uuid::from_u128(0xa000_0000 + organization);
    let owner_id = Uuid::from_u128(0xb000_0000 + number);
    let workspace_id = Uuid::from_u128(0xc000_0000 + number);
    let agent_id = Uuid::from_u128(0xd000_0000 + number);
    let token = format!("agent-token-{number:08}");
    let directory = vec![
        DirectoryEntry::Organization {
            id: organization_id,
            name: format!("org-{organization}"),
            display_name: format!("Organization {organization}"),
            icon: String::new(),
            deleted: false,
        },
        DirectoryEntry::User {
            id: owner_id,
            username: format!("user-{number}"),
            email: format!("User-{number}@example.com"),
            name: format!("User {number}"),
            avatar_url: String::new(),
            status: "active".to_owned(),
            login_type: "password".to_owned(),
            deleted: false,
        },
        DirectoryEntry::Workspace {
            id: workspace_id,
            organization_id,
            owner_id,
            name: format!("workspace-{number}"),
            deleted: false,
        },
        DirectoryEntry::Agent {
            id: agent_id,
            workspace_id,
            name: "main".to_owned(),
            token: token.clone(),
            deleted: false,
        },
    ];
    let workspace =
        Workspace { organization_id, owner_id, workspace_id, workspace_name: format!("workspace-{number}") };
    let agent = AgentIdentity { agent_id: Some(agent_id), agent_name: "main".to_owned(), workspace };
    Site { agent: Arc::new(agent), token, directory }
}

/// Stores a new API token and returns its secret.
pub async fn api_token(
    store: &Store,
    role: Role,
    user_id: Option<Uuid>,
    organizations: Option<Vec<Uuid>>,
    now: Timestamp,
) -> Result<String, StoreError> {
    let secret = tokens::generate();
    let token = ApiToken {
        id: Uuid::new_v4(),
        role,
        user_id,
        organizations,
        created_at: now,
        expires_at: None,
        revoked_at: None,
    };
    store.create_token(&token, &tokens::digest(&secret)).await?;
    Ok(secret)
}

/// A plain SSH client.
pub fn ssh_client() -> Client {
    Client {
        method: Some(Method::Ssh),
        app_name: Some("ssh".to_owned()),
        ip: Some(IpAddr::from([10, 0, 0, 1])),
        ..Client::default()
    }
}

/// A connect of `connection` at `time`.
pub fn connect(agent: &Arc<AgentIdentity>, connection: u128, time: Timestamp) -> Event {
    agent_event(agent, connection, time, Action::Connect)
}

/// A disconnect of `connection` at `time` that does not say when it began.
pub fn disconnect(agent: &Arc<AgentIdentity>, connection: u128, time: Timestamp) -> Event {
    let outcome = Outcome { code: Some(0), ..Outcome::default() };
    agent_event(agent, connection, time, Action::Disconnect { connected_at: None, outcome })
}

/// Any event about a connection.
pub fn agent_event(agent: &Arc<AgentIdentity>, connection: u128, time: Timestamp, action: Action) -> Event {
    event_of(agent, connection, time, ssh_client(), action)
}

fn event_of(agent: &Arc<AgentIdentity>, connection: u128, time: Timestamp, client: Client, action: Action) -> Event {
    Event::Agent(AgentEvent {
        agent: Arc::clone(agent),
        connection_id: Uuid::from_u128(connection),
        boot: None,
        time,
        time_is_receipt: false,
        source: Source::Agent,
        received_at: time,
        client,
        action,
    })
}

/// The events of a session: its connect, and its disconnect if it has an `end`, at that time and with that outcome.
pub fn session(
    agent: &Arc<AgentIdentity>,
    connection: u128,
    start: Timestamp,
    client: &Client,
    end: Option<(Timestamp, Outcome)>,
) -> Vec<Event> {
    let mut events = vec![event_of(agent, connection, start, client.clone(), Action::Connect)];
    events.extend(end.map(|(time, outcome)| {
        let action = Action::Disconnect { connected_at: Some(start), outcome };
        event_of(agent, connection, time, client.clone(), action)
    }));
    events
}

/// A web event.
pub fn web(agent: &Arc<AgentIdentity>, event: u128, time: Timestamp, method: Method) -> Event {
    Event::Web(web_event(agent, event, time, method))
}

/// A web event whose fields a test may change.
pub fn web_event(agent: &Arc<AgentIdentity>, event: u128, time: Timestamp, method: Method) -> WebEvent {
    WebEvent {
        event_id: Uuid::from_u128(event),
        agent: Arc::clone(agent),
        user_id: Some(agent.workspace.owner_id),
        method,
        time,
        received_at: time,
        ip: Some(IpAddr::from([192, 0, 2, 7])),
        user_agent: "Mozilla/5.0".to_owned(),
        slug_or_port: "code-server".to_owned(),
        status_code: 200,
        connection_id: None,
    }
}
