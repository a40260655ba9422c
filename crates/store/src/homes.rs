//! Homes: the owner and the workspace of a connection, of which rows have a number.
//!
//! The number follows from the ids, so nothing is looked up to write a row. That its home is there to be read is what this makes sure
//! of, before the row: nothing in the database does. What is known to be there is forgotten with each new connection, since it may be to
//! a database that was restored from before.

use std::collections::BTreeMap;

use connlog_model::identity::Workspace;
use uuid::Uuid;

use crate::session::Session;
use crate::{Store, StoreError};

/// So many homes are remembered as known, in eight bytes each.
const MOST_KNOWN: usize = 1_000_000;

/// In the order of the numbers, so that two replicas cannot deadlock.
const NOTE: &str = "-- note_homes
SELECT note_home(organization_id, owner_id, workspace_id)
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS k (organization_id, owner_id, workspace_id)";

impl Store {
    /// Makes the homes of connections to `workspaces` known, in a transaction of its own, over the connection that will write.
    pub(crate) async fn note_homes<'a>(
        &self,
        client: &Session,
        workspaces: impl IntoIterator<Item = &'a Workspace>,
    ) -> Result<(), StoreError> {
        let mut last = None;
        let mut missing = BTreeMap::new();
        {
            let known = self.known_homes.lock().expect("no one panics while holding the known homes");
            for workspace in workspaces {
                // Events of an agent come in a row, and share its identity.
                if last.replace(workspace).is_some_and(|last| std::ptr::eq(last, workspace)) {
                    continue;
                }
                let home = workspace.home();
                if !known.contains(&home) {
                    missing.insert(home, workspace);
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let column = |id: fn(&Workspace) -> Uuid| missing.values().map(|workspace| id(workspace)).collect::<Vec<_>>();
        let organizations = column(|workspace| workspace.organization_id);
        let owners = column(|workspace| workspace.owner_id);
        let ids = column(|workspace| workspace.workspace_id);
        client.query(NOTE, &[&organizations, &owners, &ids]).await?;
        let mut known = self.known_homes.lock().expect("no one panics while holding the known homes");
        if known.len() + missing.len() > MOST_KNOWN {
            known.clear();
        }
        known.extend(missing.into_keys());
        Ok(())
    }
}
