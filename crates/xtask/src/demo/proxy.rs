//! A simulated proxy: workspace apps, forwarded ports and tunnels, with the acting user.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use chrono::{TimeDelta, Utc};
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_model::identity::web_row_id;
use connlog_model::method::Method;
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt as _, SeedableRng as _};
use tonic::transport::Channel;
use uuid::Uuid;

use super::agent::{authorized, timestamp};
use super::directory::Directory;
use super::ledger::{Expected, Ledger};
use super::sessions;

const TICK: Duration = Duration::from_millis(500);
const APPS: [&str; 4] = ["code-server", "jupyter", "rstudio", "filebrowser"];
const USER_AGENTS: [&str; 3] = [
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_5) AppleWebKit/605.1.15 Version/18.0 Safari/605.1.15",
    "curl/8.9.1",
];

/// What the proxy works with.
pub(crate) struct Proxy {
    pub(crate) directory: Directory,
    pub(crate) token: String,
    pub(crate) ledger: Ledger,
    pub(crate) quiet: Arc<AtomicBool>,
}

impl Proxy {
    /// Reports a day of history, then lives until it is dropped.
    pub(crate) async fn run(self, server: SocketAddr) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(99);
        let channel = Channel::from_shared(format!("http://{server}"))?.connect().await?;
        let mut client = ConnectionLogClient::new(channel);
        let now = Utc::now();
        let history = (0..300).map(|_| now - TimeDelta::seconds(random.random_range(60..86_400))).collect::<Vec<_>>();
        let events = history.into_iter().map(|time| self.event(&mut random, time)).collect();
        self.report(&mut client, events).await?;
        loop {
            tokio::time::sleep(TICK).await;
            if !self.quiet.load(Ordering::Relaxed) {
                let count = random.random_range(1..4);
                let events = (0..count).map(|_| self.event(&mut random, Utc::now())).collect();
                self.report(&mut client, events).await?;
            }
        }
    }

    async fn report(&self, client: &mut ConnectionLogClient<Channel>, events: Vec<v1::ReportedEvent>) -> Result<()> {
        let count = events.len() as u64;
        self.ledger.note_sent(count);
        let response =
            client.report_events(authorized(v1::ReportEventsRequest { events }, &self.token)).await?.into_inner();
        ensure!(u64::from(response.accepted) == count, "the proxy's events were rejected: {:?}", response.rejected);
        self.ledger.note_acknowledged(count);
        Ok(())
    }

    fn event(&self, random: &mut SmallRng, time: Timestamp) -> v1::ReportedEvent {
        let time = truncate_to_micros(time);
        let workspace = random.random_range(0..self.directory.workspaces.len());
        let (method, web_type, slug_or_port, status_code) = match random.random_range(0..10) {
            0..6 => {
                let app = *APPS.choose(random).expect("there are apps");
                let status = *[200, 200, 200, 302, 404, 502].choose(random).expect("there are statuses");
                (Method::WorkspaceApp, v1::WebType::WorkspaceApp, app.to_owned(), status)
            }
            6..8 => {
                (Method::PortForwarding, v1::WebType::PortForwarding, random.random_range(3000..9000).to_string(), 200)
            }
            _ => {
                (Method::Tunnel, v1::WebType::Tunnel, String::new(), if random.random_ratio(1, 4) { 403 } else { 101 })
            }
        };
        let user = match random.random_range(0..10) {
            0 => None,
            1..3 => Some(random.random_range(0..self.directory.users.len())),
            _ => Some(self.directory.workspaces[workspace].owner),
        };
        let event_id = Uuid::new_v4();
        self.ledger.add(Expected {
            workspace,
            method,
            app: None,
            user,
            id: web_row_id(event_id, self.directory.workspaces[workspace].id),
            connect_time: time,
            ended: true,
            streamed: false,
        });
        let web = v1::WebConnection {
            event_id: event_id.as_bytes().to_vec(),
            r#type: web_type.into(),
            timestamp: Some(timestamp(time)),
            ip: sessions::ip(random),
            user_agent: (*USER_AGENTS.choose(random).expect("there are user agents")).to_owned(),
            slug_or_port,
            status_code,
            connection_id: Vec::new(),
        };
        v1::ReportedEvent {
            workspace_id: self.directory.workspaces[workspace].id.as_bytes().to_vec(),
            agent_name: "main".to_owned(),
            user_id: user.map(|user| self.directory.users[user].id.as_bytes().to_vec()).unwrap_or_default(),
            event: Some(v1::reported_event::Event::Web(web)),
            ..v1::ReportedEvent::default()
        }
    }
}
