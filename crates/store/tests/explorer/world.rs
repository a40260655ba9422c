//! The database of the explorer, its actors' connections, and the state of the rows.

use std::sync::Arc;

use connlog_model::identity::AgentIdentity;
use connlog_store::infer::Hello;
use connlog_store::write::Batch;
use connlog_store::{Store, StoreConfig};
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures;
use connlog_testkit::gate::{Gate, Rewrite};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::actions::{LAST_SEEN, event, hour};
use crate::oracle::{End, Initial, Outcome, Row};

/// An agent of its own for each schedule, and the connections that the story is about.
#[derive(Clone)]
pub struct Site {
    pub agent: Arc<AgentIdentity>,
    pub spool_id: Uuid,
    pub stream_id: Uuid,
    pub boot_id: Uuid,
    pub connections: Vec<Uuid>,
}

/// An actor's way to the database.
pub struct Actor {
    pub gate: Gate,
    pub store: Store,
    pub pid: i32,
}

pub struct World {
    pub actors: Vec<Actor>,
    /// Connections of each story.
    pub connections: u128,
    store: Store,
    monitor: Client,
    stories: u128,
    /// Ends with the world.
    database: TestDatabase,
}

impl World {
    pub async fn new(actors: usize, rewrite: Option<Rewrite>) -> Self {
        let database = TestDatabase::create().await.unwrap();
        let monitor = database.client().await.unwrap();
        let store = database.store().unwrap();
        store
            .attach_days((0..8).map(|day| hour(10).date_naive() + chrono::Days::new(day) - chrono::Days::new(2)))
            .await
            .unwrap();
        let server = database.url().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
        let mut world = Self { actors: Vec::new(), connections: 1, store, monitor, stories: 0, database };
        for number in 0..actors {
            let gate = Gate::open(server.clone(), rewrite.clone()).await.unwrap();
            let through_gate = world.database.url().replace(&server, &format!("127.0.0.1:{}", gate.port()));
            let url = format!("{through_gate}?sslmode=disable&options=-c%20deadlock_timeout%3D10ms");
            let name = format!("actor-{number}");
            let config = StoreConfig { by_key: true, ..StoreConfig::new(url, name.clone(), 1) };
            let store = Store::new(&config).unwrap();
            store.ping().await.unwrap();
            let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()";
            let pid = world.monitor.query_one(sql, &[&name]).await.unwrap().get(0);
            world.actors.push(Actor { gate, store, pid });
        }
        world
    }

    pub async fn execute(&self, sql: &str) {
        self.monitor.batch_execute(sql).await.unwrap();
    }

    /// Whether an actor's statement waits for a lock.
    pub async fn is_blocked(&self, actor: usize) -> bool {
        let sql = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)";
        let statement = self.monitor.prepare(sql).await.unwrap();
        self.monitor.query_one(&statement, &[&self.actors[actor].pid]).await.unwrap().get(0)
    }

    /// Deadlocks that the server has broken in this database.
    pub async fn deadlocks(&self) -> i64 {
        // Backends hand in their statistics when they are idle; asking makes them do so.
        for actor in &self.actors {
            actor.store.ping().await.unwrap();
        }
        self.monitor.batch_execute("SELECT pg_stat_force_next_flush()").await.unwrap();
        let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        self.monitor.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Clears the tables and sets the stage.
    pub async fn begin(&mut self, initial: Initial) -> Site {
        self.stories += 1;
        self.monitor
            .batch_execute(
                "DELETE FROM open_connections; DELETE FROM connection_logs; DELETE FROM connection_log_counts;
                 DELETE FROM agent_presence; DELETE FROM contradictions; UPDATE retention_floor SET cutoff = '-infinity';",
            )
            .await
            .unwrap();
        let fixture = fixtures::site(self.stories, 1);
        fixtures::import(&self.store, &fixture.directory, hour(1)).await.unwrap();
        let connections = (0..self.connections).map(|number| Uuid::from_u128(self.stories * 10 + number + 1)).collect();
        let site = Site {
            agent: fixture.agent,
            spool_id: Uuid::from_u128(1),
            stream_id: Uuid::from_u128(2),
            boot_id: Uuid::from_u128(3),
            connections,
        };
        let hello = Hello {
            agent_id: site.agent.agent_id.unwrap(),
            spool_id: site.spool_id,
            boot_id: site.boot_id,
            stream_id: site.stream_id,
            first_unacked_seq: 1,
            last_seq: 0,
            received_at: hour(LAST_SEEN),
        };
        self.store.greet(&hello).await.unwrap();
        let mut events = Vec::new();
        for connection in &site.connections {
            events.extend(initial.events().iter().map(|step| event(&site, *connection, step)));
        }
        self.store.apply_batch(&Batch { events, ..Batch::default() }, 1, hour(60)).await.unwrap();
        if initial == Initial::Inferred {
            self.store.sweep_silent(hour(100), hour(-1000), chrono::TimeDelta::hours(10)).await.unwrap();
        }
        site
    }

    /// The row of a connection and how many events contradict it, or what is wrong with it.
    pub async fn outcome(&self, site: &Site, connection: Uuid) -> Result<Outcome, String> {
        let id = site.agent.row_id(connection);
        let sql = "SELECT connect_time, start_source IS NOT NULL FROM open_connections WHERE id = $1";
        let open = self.monitor.query(sql, &[&id]).await.unwrap();
        let sql =
            "SELECT connect_time, start_source IS NOT NULL, disconnect_time, coalesce(disconnect_reason, '') AS reason,
                   disconnect_inferred FROM connection_logs WHERE id = $1";
        let history = self.monitor.query(sql, &[&id]).await.unwrap();
        let hours = |time: connlog_model::clock::Timestamp| (time - hour(0)).num_hours();
        let row = match (&open[..], &history[..]) {
            ([], []) => None,
            ([row], []) => Some(Row { start: hours(row.get(0)), known: row.get(1), end: None }),
            ([], [row]) => {
                let end = End { at: hours(row.get(2)), reason: row.get(3), inferred: row.get(4) };
                Some(Row { start: hours(row.get(0)), known: row.get(1), end: Some(end) })
            }
            _ => return Err(format!("{} rows open and {} in history", open.len(), history.len())),
        };
        let sql = "SELECT count(*) FROM contradictions WHERE row_id = $1";
        let contradictions: i64 = self.monitor.query_one(sql, &[&id]).await.unwrap().get(0);
        Ok((row, usize::try_from(contradictions).unwrap()))
    }

    /// Whether a row below the floor was written by a transaction later than the one that raised the floor.
    pub async fn purged_rows_came_back(&self) -> bool {
        let sql = "SELECT EXISTS (
            SELECT FROM (SELECT connect_time, changed_xid FROM open_connections
                         UNION ALL SELECT connect_time, changed_xid FROM connection_logs) AS rows, retention_floor AS floor
            WHERE rows.connect_time < floor.cutoff AND rows.changed_xid::text::bigint > floor.xmin::text::bigint)";
        let statement = self.monitor.prepare(sql).await.unwrap();
        self.monitor.query_one(&statement, &[]).await.unwrap().get(0)
    }

    /// Whether the counts are those of history.
    pub async fn counts_are_right(&self) -> bool {
        let sql = "SELECT NOT EXISTS (
            SELECT FROM (SELECT day, organization_id, method, app_name, sum(entries) AS n FROM connection_log_counts GROUP BY 1, 2, 3, 4) c
            FULL JOIN (SELECT (connect_time AT TIME ZONE 'UTC')::date AS day, organization_id, method, coalesce(app_name, '') AS app_name, count(*) AS n
                       FROM connection_logs GROUP BY 1, 2, 3, 4) h USING (day, organization_id, method, app_name)
            WHERE coalesce(c.n, 0) <> coalesce(h.n, 0))";
        let statement = self.monitor.prepare(sql).await.unwrap();
        self.monitor.query_one(&statement, &[]).await.unwrap().get(0)
    }
}
