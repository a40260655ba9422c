//! The stage of most tests: a migrated database with some sites in its directory, and an auditor's token.

use connlog_model::clock::Timestamp;
use connlog_model::event::Event;
use connlog_model::role::Role;
use connlog_store::Store;
use connlog_store::write::{Applied, Batch};
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::fixtures::{self, Site, now};

/// A database, its store, its directory and somebody who may read it.
pub struct Stage {
    /// The database.
    pub database: TestDatabase,
    /// A store on it, with all rights.
    pub store: Store,
    /// The sites of its directory.
    pub sites: Vec<Site>,
    /// A token of role auditor, for all organizations.
    pub auditor: String,
}

impl Stage {
    /// Makes a database that knows `sites`.
    pub async fn new(sites: Vec<Site>) -> Self {
        Self::at(sites, None, now()).await
    }

    /// Makes it with a directory that was imported at `time`, and an auditor who is `user`.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn at(sites: Vec<Site>, user: Option<Uuid>, time: Timestamp) -> Self {
        Self::on(TestDatabase::create().await.expect("the test server makes a database"), sites, user, time).await
    }

    /// Sets up a database that is there.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn on(database: TestDatabase, sites: Vec<Site>, user: Option<Uuid>, time: Timestamp) -> Self {
        let store = database.store().expect("the URL of a test database is right");
        let directory: Vec<_> = sites.iter().flat_map(|site| site.directory.clone()).collect();
        fixtures::import(&store, &directory, time).await.expect("the directory of fixtures is right");
        let auditor = fixtures::api_token(&store, Role::Auditor, user, None, now()).await.expect("a token is stored");
        Self { database, store, sites, auditor }
    }

    /// Writes events in one batch, received now.
    pub async fn write(&self, events: Vec<Event>) -> Applied {
        write(&self.store, events).await
    }
}

/// Writes events in one batch, received now.
///
/// # Panics
/// If the database refuses.
pub async fn write(store: &Store, events: Vec<Event>) -> Applied {
    store.apply_batch(&Batch { events, ..Batch::default() }, 1, now()).await.expect("the batch is written")
}
