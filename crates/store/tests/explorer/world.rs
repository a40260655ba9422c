//! The database of the explorer, its actors' connections, and the state of the rows.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use connlog_model::clock::Timestamp;
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

/// A connection that the story is about, and its agent.
#[derive(Clone)]
pub struct Connection {
    pub agent: Arc<AgentIdentity>,
    pub id: Uuid,
}

/// Agents of their own for each schedule, and the connections that the story is about.
#[derive(Clone)]
pub struct Site {
    pub agents: Vec<Arc<AgentIdentity>>,
    pub spool_id: Uuid,
    pub stream_id: Uuid,
    pub boot_id: Uuid,
    pub connections: Vec<Connection>,
}

/// An actor's way to the database.
pub struct Actor {
    pub gate: Gate,
    pub store: Store,
    pub pid: i32,
}

pub struct World {
    pub actors: Vec<Actor>,
    /// Agents of each story.
    pub agents: u128,
    /// Connections of each story, of each agent in turn.
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
        let mut world = Self { actors: Vec::new(), agents: 1, connections: 1, store, monitor, stories: 0, database };
        for number in 0..actors {
            let (gate, through_gate) = Gate::before(world.database.url(), rewrite.clone()).await.unwrap();
            let url = format!("{through_gate}&options=-c%20deadlock_timeout%3D10ms");
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
        // Backends hand in their statistics when they become idle, at most once a second.
        for pause in [Duration::ZERO, Duration::from_millis(1_100)] {
            tokio::time::sleep(pause).await;
            for actor in &self.actors {
                actor.store.ping().await.unwrap();
            }
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
                "DELETE FROM connection_logs; DELETE FROM ongoing; DELETE FROM connection_log_counts; DELETE FROM agent_spools;
                 DELETE FROM contradictions; UPDATE agents SET open_since = NULL;",
            )
            .await
            .unwrap();
        let first_day = hour(10) - TimeDelta::days(3);
        let written = "UPDATE floor SET cutoff = '-infinity', closed_before = $1";
        self.monitor.execute(written, &[&first_day]).await.unwrap();
        for day in 2..4 {
            let attach = "SELECT attach_day($1)";
            self.monitor.query(attach, &[&(first_day + TimeDelta::days(day)).date_naive()]).await.unwrap();
        }
        let mut agents = Vec::new();
        for number in 0..self.agents {
            let fixture = fixtures::site(self.stories * 10 + number, 1);
            fixtures::import(&self.store, &fixture.directory, hour(1)).await.unwrap();
            agents.push(fixture.agent);
        }
        let connection = |number| {
            let agent = Arc::clone(&agents[usize::try_from(number % self.agents).unwrap()]);
            Connection { agent, id: Uuid::from_u128(self.stories * 10 + number + 1) }
        };
        let site = Site {
            connections: (0..self.connections).map(connection).collect(),
            agents,
            spool_id: Uuid::from_u128(1),
            stream_id: Uuid::from_u128(2),
            boot_id: Uuid::from_u128(3),
        };
        for agent in &site.agents {
            let hello = Hello {
                agent: Arc::clone(agent),
                spool_id: site.spool_id,
                boot_id: site.boot_id,
                stream_id: site.stream_id,
                first_unacked_seq: 1,
                last_seq: 0,
                received_at: hour(LAST_SEEN),
            };
            self.store.greet(&hello).await.unwrap();
        }
        let mut events = Vec::new();
        for connection in &site.connections {
            events.extend(initial.events().iter().map(|step| event(connection, step)));
        }
        self.store.apply_batch(&Batch { events, ..Batch::default() }, 1, hour(60)).await.unwrap();
        match initial {
            Initial::Inferred | Initial::InferredEarlier => {
                let swept = self.store.sweep_silent(hour(100), hour(-1000), TimeDelta::hours(10)).await.unwrap();
                assert_eq!(swept.len(), site.connections.len());
            }
            Initial::Listed => self.store.close_days(Utc::now()).await.unwrap(),
            Initial::Nothing | Initial::Open | Initial::Completed => {}
        }
        site
    }

    /// The row of a connection and how many events contradict it, or what is wrong with it.
    pub async fn outcome(&self, connection: &Connection) -> Result<Outcome, String> {
        let id = connection.agent.row_id(connection.id);
        let sql =
            "SELECT connect_time, start_source IS NOT NULL, disconnect_time, coalesce(disconnect_reason, '') AS reason,
                   disconnect_inferred FROM connection_logs WHERE id = $1";
        let rows = self.monitor.query(sql, &[&id]).await.unwrap();
        let hours = |time: Timestamp| (time - hour(0)).num_hours();
        let row = match &rows[..] {
            [] => None,
            [row] => {
                let at: Option<Timestamp> = row.get(2);
                let end = at.map(|at| End { at: hours(at), reason: row.get(3), inferred: row.get(4) });
                Some(Row { start: hours(row.get(0)), known: row.get(1), end })
            }
            _ => return Err(format!("{} rows", rows.len())),
        };
        let sql = "SELECT count(*) FROM contradictions WHERE row_id = $1";
        let contradictions: i64 = self.monitor.query_one(sql, &[&id]).await.unwrap().get(0);
        Ok((row, usize::try_from(contradictions).unwrap()))
    }

    /// Whether a row below the floor was written by a transaction later than the one that raised the floor.
    pub async fn purged_rows_came_back(&self) -> bool {
        let sql = "SELECT EXISTS (
            SELECT FROM connection_logs AS log, floor
            WHERE log.connect_time < floor.cutoff AND floor.xmin::text::bigint
                < (SELECT min(xid::text::bigint) FROM changes WHERE ids @> ARRAY[log.id]))";
        let statement = self.monitor.prepare(sql).await.unwrap();
        self.monitor.query_one(&statement, &[]).await.unwrap().get(0)
    }

    /// Whether the counts are those of the rows.
    pub async fn counts_are_right(&self) -> bool {
        let sql = "SELECT NOT EXISTS (
            SELECT FROM (SELECT day, organization_id, method, app_name, sum(entries) AS n, sum(ended) AS ended
                         FROM connection_log_counts GROUP BY 1, 2, 3, 4) c
            FULL JOIN (SELECT (connect_time AT TIME ZONE 'UTC')::date AS day, organization_id, method, coalesce(app_name, '') AS app_name,
                           count(*) AS n, count(disconnect_time) AS ended
                       FROM connection_logs JOIN targets USING (target) GROUP BY 1, 2, 3, 4) h USING (day, organization_id, method, app_name)
            WHERE (coalesce(c.n, 0), coalesce(c.ended, 0)) <> (coalesce(h.n, 0), coalesce(h.ended, 0)))";
        let statement = self.monitor.prepare(sql).await.unwrap();
        self.monitor.query_one(&statement, &[]).await.unwrap().get(0)
    }

    /// Whether `ongoing` is what has no end and lies on a closed day, and nothing is open from before what its agent is noted with.
    pub async fn what_is_open_of_closed_days_is_listed(&self) -> bool {
        let sql = "SELECT NOT EXISTS (
            SELECT FROM ongoing FULL JOIN (
                SELECT id, connect_time, true AS is_there FROM connection_logs, floor
                WHERE disconnect_time IS NULL AND method <= 2 AND connect_time < closed_before) AS open USING (id, connect_time)
            WHERE ongoing.target IS NULL OR open.is_there IS NULL)
        AND NOT EXISTS (
            SELECT FROM connection_logs JOIN targets USING (target) JOIN agents USING (agent)
            WHERE disconnect_time IS NULL AND method <= 2 AND (open_since IS NULL OR open_since > connect_time))";
        let statement = self.monitor.prepare(sql).await.unwrap();
        self.monitor.query_one(&statement, &[]).await.unwrap().get(0)
    }
}
