//! `Directory.Sync`: a control plane keeps names current. All entries of a call are seen at once, or none.

use std::time::Duration;

use connlog_model::clock::Clock;
use connlog_proto::v1;
use connlog_proto::v1::directory_entry::Entry;
use connlog_proto::v1::directory_server::Directory;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::Store;
use connlog_store::directory::{DirectoryEntry, Import};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::auth;
use crate::grpc::{invalid, status, unavailable};
use crate::parse::{Invalid, required_id};

/// How long the next entry may take.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls that run at once; each holds a database connection.
pub const CONCURRENT_SYNCS: usize = 2;

/// The service.
pub struct DirectorySync {
    /// Room for [`CONCURRENT_SYNCS`].
    pub running: Semaphore,
    /// Ends calls.
    pub shutdown: Shutdown,
    /// Holds the directory.
    pub store: Store,
    /// Where the time comes from.
    pub clock: Clock,
}

#[tonic::async_trait]
impl Directory for DirectorySync {
    async fn sync(&self, request: Request<Streaming<v1::DirectoryEntry>>) -> Result<Response<v1::SyncSummary>, Status> {
        auth::directory_keeper(&request)?;
        let _one_of_few = self.running.acquire().await.map_err(|_| unavailable("the service is stopping"))?;
        tokio::select! {
            synced = self.import(request.into_inner()) => synced,
            () = self.shutdown.begun() => Err(unavailable("the service is stopping; nothing of the call was kept")),
        }
    }
}

impl DirectorySync {
    async fn import(&self, mut entries: Streaming<v1::DirectoryEntry>) -> Result<Response<v1::SyncSummary>, Status> {
        let mut connection = self.store.import_connection().await.map_err(|error| status(&error))?;
        let mut import = Import::begin(&mut connection, self.clock.now()).await.map_err(|error| status(&error))?;
        let (mut summary, mut index) = (v1::SyncSummary::default(), 0_u32);
        while let Some(entry) = next(&mut entries).await? {
            let entry = parse(entry, &mut summary).map_err(|error| invalid(&at(index, &error)))?;
            import.apply(&entry).await.map_err(|error| match error {
                connlog_store::StoreError::Invalid(reason) => invalid(&at(index, &Invalid::new("entry", reason))),
                error => status(&error),
            })?;
            index += 1;
        }
        import.commit().await.map_err(|error| match error {
            connlog_store::StoreError::Unknown { entry, field, id } => {
                let index = u32::try_from(entry).unwrap_or(u32::MAX);
                invalid(&at(index, &Invalid::new(field, format!("{id} is not in the directory"))))
            }
            error => status(&error),
        })?;
        Ok(Response::new(summary))
    }
}

async fn next(entries: &mut Streaming<v1::DirectoryEntry>) -> Result<Option<v1::DirectoryEntry>, Status> {
    match tokio::time::timeout(IDLE_TIMEOUT, entries.message()).await {
        Ok(entry) => entry,
        Err(_) => Err(Status::deadline_exceeded("no entry came in time; nothing of the call was kept")),
    }
}

fn at(index: u32, error: &Invalid) -> Invalid {
    Invalid::new(error.field, format!("of entry {index}: {}", error.reason))
}

fn parse(entry: v1::DirectoryEntry, summary: &mut v1::SyncSummary) -> Result<DirectoryEntry, Invalid> {
    Ok(match entry.entry.ok_or_else(|| Invalid::new("entry", "is missing"))? {
        Entry::Organization(it) => {
            summary.organizations += 1;
            DirectoryEntry::Organization {
                id: required_id("id", &it.id)?,
                name: it.name,
                display_name: it.display_name,
                icon: it.icon,
                deleted: it.deleted,
            }
        }
        Entry::User(it) => {
            summary.users += 1;
            DirectoryEntry::User {
                id: required_id("id", &it.id)?,
                username: it.username,
                email: it.email,
                name: it.name,
                avatar_url: it.avatar_url,
                status: it.status,
                login_type: it.login_type,
                deleted: it.deleted,
            }
        }
        Entry::Workspace(it) => {
            summary.workspaces += 1;
            DirectoryEntry::Workspace {
                id: required_id("id", &it.id)?,
                organization_id: required_id("organization_id", &it.organization_id)?,
                owner_id: required_id("owner_id", &it.owner_id)?,
                name: it.name,
                deleted: it.deleted,
            }
        }
        Entry::Agent(it) => {
            summary.agents += 1;
            DirectoryEntry::Agent {
                id: required_id("id", &it.id)?,
                workspace_id: required_id("workspace_id", &it.workspace_id)?,
                name: it.name,
                token: it.token,
                deleted: it.deleted,
            }
        }
    })
}
