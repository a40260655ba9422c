//! Homes: the owner and the workspace of a connection, of which rows have a number.
//!
//! The number follows from the ids, so nothing is looked up to write a row. That its home is there to be read is what this makes sure
//! of, before the row: nothing in the database does. What is known to be there is forgotten with each new connection, since it may be to
//! a database that was restored from before; behind a pooler, which may have one at any time, it is not remembered at all.

use std::collections::BTreeMap;

use connlog_model::identity::Workspace;
use uuid::Uuid;

use crate::session::Session;
use crate::{Store, StoreError};

/// So many homes are remembered as known, in eight bytes each.
const MOST_KNOWN: usize = 1_000_000;

/// In the order of the numbers, so that two replicas cannot deadlock.
const NOTE: &str = "-- note_homes
SELECT note_home(k.organization_id, k.owner_id, k.workspace_id)
FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::uuid[]) AS k (home, organization_id, owner_id, workspace_id)
WHERE NOT EXISTS (SELECT FROM homes h WHERE h.home = k.home AND h.organization_id = k.organization_id
    AND h.workspace_owner_id = k.owner_id AND h.workspace_id = k.workspace_id)";

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
        let homes: Vec<i64> = missing.keys().copied().collect();
        let column = |id: fn(&Workspace) -> Uuid| missing.values().map(|workspace| id(workspace)).collect::<Vec<_>>();
        let organizations = column(|workspace| workspace.organization_id);
        let owners = column(|workspace| workspace.owner_id);
        let ids = column(|workspace| workspace.workspace_id);
        client.query(NOTE, &[&homes, &organizations, &owners, &ids]).await?;
        if client.is_pooled() {
            return Ok(());
        }
        let mut known = self.known_homes.lock().expect("no one panics while holding the known homes");
        if known.len() + missing.len() > MOST_KNOWN {
            known.clear();
        }
        known.extend(homes);
        Ok(())
    }
}
