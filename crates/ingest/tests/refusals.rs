//! What the database refuses for now holds up those who need it, and nobody else: somebody's trigger, a day that is not
//! attached, a publication. What can never be stored is a dead letter. A database that takes nothing holds up everybody.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_proto::v1;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{Site, now};
use connlog_testkit::postgres::{Options, PostgresServer};
use connlog_testkit::wait::until;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;
use support::{Binary, HelloOf, Stream, authorized, client, connect, database_with, disconnect, number};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tonic::Code;
use uuid::Uuid;

/// How long what is held must stay without an answer for the test to believe it.
const HELD_FOR: Duration = Duration::from_secs(2);

/// A running ingest, two agents, and a superuser who breaks things.
struct Stage {
    _database: TestDatabase,
    superuser: Client,
    ingest: Binary,
    sites: Vec<Site>,
}

impl Stage {
    async fn new(sites: u128) -> Self {
        let (database, _store, sites) = database_with(sites).await;
        let ingest = Binary::start(database.url(), None, None);
        let superuser = database.client().await.unwrap();
        Self { _database: database, superuser, ingest, sites }
    }

    async fn stream(&self, site: usize) -> Stream {
        Stream::open(self.ingest.address, &self.sites[site].token, &HelloOf::new()).await.unwrap()
    }

    async fn admin(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{}{path}", self.ingest.admin_address)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Ingest goes on meanwhile: PostgreSQL may have to break a deadlock with it.
    async fn execute(&self, sql: &str) {
        let is_done = async || match self.superuser.batch_execute(sql).await {
            Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => false,
            outcome => outcome.map(|()| true).unwrap(),
        };
        until("it is executed", is_done).await;
    }

    /// The culprit sends `events` and is held, with `cause` in what operators see; another agent goes on; once `mend` was
    /// executed, the culprit goes on by itself.
    async fn holds_the_culprit_alone(&self, events: Vec<v1::Connection>, cause: &str, mend: &str) {
        let (mut culprit, mut other) = (self.stream(0).await, self.stream(1).await);
        let last = culprit.send(events.clone()).await;
        let detail = async || self.admin("/readyz").await.1.contains(cause);
        until(&format!("/readyz names {cause}"), detail).await;
        let (status, text) = self.admin("/readyz").await;
        assert_eq!(status, 200, "{text}");
        assert!(text.starts_with("ok\n1 streams are held: 1 by "), "{text}");
        assert!(self.admin("/metrics").await.1.contains("connlog_ingest_held_streams 1\n"));
        for _ in 0..20 {
            let last = other.send(vec![connect(Uuid::new_v4(), now())]).await;
            assert_eq!(other.acked(last).await.unwrap(), []);
        }
        let mut calls = client(self.ingest.address).await;
        let request = v1::ReportConnectionRequest { connection: events.last().cloned() };
        let refused = calls.report_connection(authorized(request, &self.sites[0].token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains(cause), "{refused}");
        assert!(culprit.is_silent_for(HELD_FOR).await, "what is held is not acknowledged");
        self.execute(mend).await;
        assert_eq!(culprit.acked(last).await.unwrap(), []);
        until("nobody is held", async || self.admin("/readyz").await.1 == "ok\n").await;
        assert!(self.admin("/metrics").await.1.contains("connlog_ingest_held_streams 0\n"));
    }
}

/// A trigger that refuses what is about the first workspace, with an error of that SQLSTATE.
fn trigger(state: &str) -> String {
    format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM targets WHERE target = NEW.target AND workspace_name = 'workspace-1') THEN
                RAISE EXCEPTION 'somebody''s rule' USING ERRCODE = '{state}';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON connection_logs FOR EACH ROW EXECUTE FUNCTION refuse();"
    )
}

fn session(start: Timestamp) -> Vec<v1::Connection> {
    let id = Uuid::new_v4();
    let end = v1::Connection { connected_at: Some(support::timestamp(start)), ..disconnect(id, start) };
    vec![connect(id, start), end]
}

fn day_table(time: Timestamp) -> String {
    format!("connection_logs_{}", time.format("%Y%m%d"))
}

#[tokio::test]
async fn a_trigger_that_raises_holds_up_those_whom_it_refuses() {
    let stage = Stage::new(2).await;
    for state in ["P0001", "55000", "42501", "XX000", "23514"] {
        stage.execute(&trigger(state)).await;
        let mend = "DROP TRIGGER refuse ON connection_logs; DROP FUNCTION refuse()";
        stage.holds_the_culprit_alone(vec![connect(Uuid::new_v4(), now())], state, mend).await;
    }
}

/// Without this, rows that a trigger leaves out without a word are acknowledged, and are nowhere.
#[tokio::test]
async fn a_trigger_that_leaves_rows_out_holds_up_those_whose_rows_they_are() {
    let stage = Stage::new(2).await;
    let leaves_out =
        trigger("P0001").replace("RAISE EXCEPTION 'somebody''s rule' USING ERRCODE = 'P0001'", "RETURN NULL");
    let mend = "DROP TRIGGER refuse ON connection_logs; DROP FUNCTION refuse()";
    for count in [1, 50] {
        stage.execute(&leaves_out).await;
        let events = (0..count).map(|_| connect(Uuid::new_v4(), now())).collect();
        stage.holds_the_culprit_alone(events, "a trigger may leave some out", mend).await;
    }
    let lost = "SELECT count(*) FROM connection_logs JOIN targets USING (target) WHERE workspace_name = 'workspace-1'";
    assert_eq!(number(&stage.superuser, lost).await, 51);
}

#[tokio::test]
async fn a_day_that_is_detached_holds_up_those_who_write_to_it() {
    let stage = Stage::new(2).await;
    let long_ago = now() - TimeDelta::days(20);
    let mut stream = stage.stream(0).await;
    let last = stream.send(session(long_ago)).await;
    stream.acked(last).await.unwrap();
    let day = day_table(long_ago);
    stage.execute(&format!("ALTER TABLE connection_logs DETACH PARTITION {day}")).await;
    let (from, to) = (long_ago.date_naive(), long_ago.date_naive() + chrono::Days::new(1));
    let attach = format!("ALTER TABLE connection_logs ATTACH PARTITION {day} FOR VALUES FROM ('{from}Z') TO ('{to}Z')");
    stage.holds_the_culprit_alone(session(long_ago), &day, &attach).await;
    let rows = format!("SELECT count(*) FROM {day}");
    assert_eq!(number(&stage.superuser, &rows).await, 2, "nothing was lost or doubled");
}

#[tokio::test]
async fn a_table_with_the_name_of_a_day_holds_up_those_who_need_that_day() {
    let stage = Stage::new(2).await;
    let long_ago = now() - TimeDelta::days(30);
    let day = day_table(long_ago);
    stage.execute(&format!("CREATE TABLE {day} (somebodys integer)")).await;
    stage.holds_the_culprit_alone(session(long_ago), &day, &format!("DROP TABLE {day}")).await;
}

#[tokio::test]
async fn a_publication_of_all_tables_holds_up_nobody_and_a_missing_replica_identity_those_who_need_it() {
    let stage = Stage::new(2).await;
    stage.execute("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)").await;
    let start = now() - TimeDelta::hours(1);
    let events = session(start);
    let mut stream = stage.stream(0).await;
    let last = stream.send(events.clone()).await;
    assert_eq!(stream.acked(last).await.unwrap(), []);
    // What changes a row of history is published, too: the bytes of another end were not known, and are filled in.
    let counted = v1::Connection { rx_bytes: 7, ..events[1].clone() };
    let last = stream.send(vec![counted.clone()]).await;
    assert_eq!(stream.acked(last).await.unwrap(), []);
    let lacking =
        "SELECT count(*) FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
        AND relreplident NOT IN ('f', 'i') AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)";
    assert_eq!(number(&stage.superuser, lacking).await, 0, "tables without a replica identity");

    let day = day_table(start);
    stage.execute(&format!("ALTER TABLE {day} REPLICA IDENTITY NOTHING")).await;
    let counted = v1::Connection { tx_bytes: 8, ..counted };
    let mend = format!("ALTER TABLE {day} REPLICA IDENTITY USING INDEX {day}_id");
    stage.holds_the_culprit_alone(vec![counted], "55000", &mend).await;
}

#[tokio::test]
async fn what_breaks_a_check_by_hand_is_a_dead_letter() {
    let stage = Stage::new(2).await;
    let (mut culprit, mut other) = (stage.stream(0).await, stage.stream(1).await);
    let last = culprit.send(vec![connect(Uuid::new_v4(), now())]).await;
    assert_eq!(culprit.acked(last).await.unwrap(), []);
    let target = number(&stage.superuser, "SELECT target FROM targets WHERE workspace_name = 'workspace-1'").await;
    let by_hand = format!("ALTER TABLE connection_logs ADD CONSTRAINT by_hand CHECK (target <> {target}) NOT VALID");
    stage.execute(&by_hand).await;
    let last = culprit.send(vec![connect(Uuid::new_v4(), now())]).await;
    let rejected = culprit.acked(last).await.unwrap();
    assert_eq!(
        rejected.iter().map(|rejection| (rejection.seq, rejection.field.as_str())).collect::<Vec<_>>(),
        [(last, "event")]
    );
    let last = other.send(vec![connect(Uuid::new_v4(), now())]).await;
    assert_eq!(other.acked(last).await.unwrap(), []);
    assert_eq!(number(&stage.superuser, "SELECT count(*) FROM rejected_events").await, 1);
}

#[tokio::test]
async fn a_database_that_is_read_only_holds_up_everybody_and_says_so() {
    let stage = Stage::new(1).await;
    let mut stream = stage.stream(0).await;
    let name: String = stage.superuser.query_one("SELECT current_database()", &[]).await.unwrap().get(0);
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'connlog-ingest%'";
    stage.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on; {cut}")).await;
    let last = stream.send(vec![connect(Uuid::new_v4(), now())]).await;
    until("it is not ready, and says why", async || {
        let (status, text) = stage.admin("/readyz").await;
        status == 503 && text.contains("25006")
    })
    .await;
    stage.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = off; {cut}")).await;
    assert_eq!(stream.acked(last).await.unwrap(), []);
    until("it is ready again", async || stage.admin("/readyz").await == (200, "ok\n".to_owned())).await;
}

/// 100 among 300; with `CONNLOG_TEST_FULL`, among 10,000.
#[tokio::test]
async fn a_hundred_culprits_among_many_streams_hold_up_nobody_else() {
    let sites = if std::env::var_os("CONNLOG_TEST_FULL").is_some() { 10_000 } else { 300 };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let stage = Stage::new(sites).await;
    stage.execute(&trigger("P0001").replace("= 'workspace-1'", "LIKE 'workspace-1__'")).await;
    let mut streams = Vec::new();
    for site in 0..stage.sites.len() {
        streams.push(stage.stream(site).await);
    }
    for _ in 0..5 {
        for stream in &mut streams {
            stream.send((0..2).map(|_| connect(Uuid::new_v4(), now())).collect()).await;
        }
    }
    let is_culprit = |site: &Site| {
        let name = &site.agent.workspace.workspace_name;
        name.len() == "workspace-1__".len() && name.starts_with("workspace-1")
    };
    let (mut culprits, mut others): (Vec<_>, Vec<_>) =
        stage.sites.iter().zip(&mut streams).partition(|(site, _)| is_culprit(site));
    assert_eq!(culprits.len(), 100);
    for (_, stream) in &mut others {
        assert_eq!(stream.acked(10).await.unwrap(), []);
    }
    until("the culprits are held", async || stage.admin("/readyz").await.1.contains("100 streams are held")).await;
    stage.execute("DROP TRIGGER refuse ON connection_logs").await;
    for (_, stream) in &mut culprits {
        assert_eq!(stream.acked(10).await.unwrap(), []);
    }
    let rows = number(&stage.superuser, "SELECT count(*) FROM connection_logs").await;
    assert_eq!(u128::try_from(rows).unwrap(), sites * 10);
}

/// Somebody who copies the database by logical replication has each row and each end, and holds up nobody, whichever way the days are
/// published.
#[tokio::test]
async fn a_subscriber_follows_the_log_and_holds_up_nobody() {
    let options = Options { settings: vec!["wal_level=logical".to_owned()], ..Options::for_tests() };
    let server = PostgresServer::start(options).unwrap();
    for via_root in [false, true] {
        let database = TestDatabase::create_on(&server.url("postgres")).await.unwrap();
        let copy = TestDatabase::create_on(&server.url("postgres")).await.unwrap();
        let (publisher, subscriber) = (database.client().await.unwrap(), copy.client().await.unwrap());
        let sites = support::import_sites(&database.store().unwrap(), 1).await;
        for client in [&publisher, &subscriber] {
            client.batch_execute("SELECT attach_day((now() AT TIME ZONE 'UTC')::date)").await.unwrap();
        }
        let publish =
            format!("CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = {via_root})");
        publisher.batch_execute(&publish).await.unwrap();
        // In one server a subscription that makes its slot waits for itself.
        let slot = format!("copy_{via_root}");
        publisher.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&slot]).await.unwrap();
        let subscribe = format!(
            "CREATE SUBSCRIPTION {slot} CONNECTION '{}' PUBLICATION everything
             WITH (create_slot = false, slot_name = '{slot}', copy_data = false)",
            database.url()
        );
        subscriber.batch_execute(&subscribe).await.unwrap();

        let ingest = Binary::start(database.url(), None, None);
        let mut stream = Stream::open(ingest.address, &sites[0].token, &HelloOf::new()).await.unwrap();
        let (id, start) = (Uuid::new_v4(), now());
        let last = stream.send(vec![connect(id, start)]).await;
        stream.acked(last).await.unwrap();
        let ended = v1::Connection { connected_at: Some(support::timestamp(start)), ..disconnect(id, start) };
        let last = stream.send(vec![ended]).await;
        stream.acked(last).await.unwrap();
        let rows = "SELECT count(*) FROM connection_logs";
        until("the copy has the connection", async || number(&subscriber, rows).await == 1).await;
        if !via_root {
            let ended = "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NOT NULL";
            until("the copy has its end", async || number(&subscriber, ended).await == 1).await;
        }
    }
}

/// Names the small disk to the program that runs on it.
const DISK_VARIABLE: &str = "CONNLOG_TEST_SMALL_DISK";

/// The disk is a small tmpfs in a mount namespace of its own, in which this test program runs again.
#[test]
fn a_full_disk_holds_up_everybody_and_loses_nothing() {
    let disk = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=200m,mode=755 tmpfs '{0}' && exec '{1}' --exact --ignored --nocapture on_a_small_disk",
        disk.path().display(),
        std::env::current_exe().unwrap().display()
    );
    // Root stays root, since the server runs as somebody else then.
    let as_user: &[&str] = if geteuid().is_root() { &[] } else { &["--user", "--map-current-user", "--keep-caps"] };
    let mut command = Command::new("unshare");
    command.args(as_user).args(["--mount", "sh", "-c", &script]).env(DISK_VARIABLE, disk.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "runs on the small disk that the other test makes"]
async fn on_a_small_disk() {
    let disk = PathBuf::from(std::env::var_os(DISK_VARIABLE).unwrap());
    let settings = ["min_wal_size=32MB", "max_wal_size=32MB", "shared_buffers=16MB"].map(str::to_owned).to_vec();
    let server = PostgresServer::start(Options { preferred_root: disk.clone(), settings, ..Options::for_tests() });
    let server = server.unwrap();
    let database = TestDatabase::create_on(&server.url("postgres")).await.unwrap();
    let sites = support::import_sites(&database.store().unwrap(), 2).await;
    let log = database.client().await.unwrap();
    let ingest = Binary::start(database.url(), None, None);
    let mut streams = Vec::new();
    for site in &sites {
        let mut stream = Stream::open(ingest.address, &site.token, &HelloOf::new()).await.unwrap();
        let last = stream.send(vec![connect(Uuid::new_v4(), now())]).await;
        stream.acked(last).await.unwrap();
        streams.push(stream);
    }

    let ballast = disk.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    // As long as it is open, it takes its room even when it is removed.
    drop(file);
    // More than fits into the pages that there are.
    let mut last = 0;
    for stream in &mut streams {
        last = stream.send((0..500).map(|_| connect(Uuid::new_v4(), now())).collect()).await;
    }
    let ready = format!("http://{}/readyz", ingest.admin_address);
    let readiness = async || reqwest::get(&ready).await.unwrap();
    until("it is not ready, and says why", async || {
        let answer = readiness().await;
        answer.status() == 503 && answer.text().await.unwrap().contains("53100")
    })
    .await;
    for stream in &mut streams {
        assert!(stream.is_silent_for(HELD_FOR).await, "nothing is acknowledged");
    }
    std::fs::remove_file(&ballast).unwrap();
    for stream in &mut streams {
        assert_eq!(stream.acked(last).await.unwrap(), []);
    }
    until("it is ready again", async || readiness().await.status() == 200).await;
    assert_eq!(number(&log, "SELECT count(*) FROM connection_logs").await, 2 * 501);
}
