//! Chaos: agents with spools, two ingests behind a bad network, a database that crashes, and kills at random instants. At
//! the end the log is what the oracle makes of the events whose append returned, and of nothing else.
//!
//! `CONNLOG_CHAOS_EVENTS` sets how many events, for a longer run. Each agent is a process of its own: this test program,
//! run again. It writes down each event before and after its append, so that an oracle that outlives it knows both.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_testkit::fixtures::{Site, now};
use connlog_testkit::wait::PATIENCE;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::DateTime;
use connlog_agent::client::{TlsFiles, TokenSource};
use connlog_agent::{Config, Reporter};
use connlog_model::clock::Timestamp;
use connlog_proto::v1;
use connlog_store::{Store, StoreConfig, roles, schema};
use connlog_testkit::database::connect as database_client;
use connlog_testkit::fault::FaultProxy;
use connlog_testkit::postgres::{Options, PostgresServer};
use connlog_testkit::process::Process;
use nix::sys::signal::Signal;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use support::{Binary, connect, disconnect, import_sites, number};
use uuid::Uuid;

/// Events, unless more are asked for.
const EVENTS: usize = 100_000;
/// Faults, at least.
const FAULTS: usize = 50;
/// Agents, each with a spool.
const AGENTS: u128 = 6;
/// Bound of the spool of the one agent more that is made to lose events, in bytes.
const SMALL_SPOOL_BYTES: u64 = 256 << 10;
/// Connections that an agent works on at once.
const WORKERS: usize = 24;
/// How long the log may take to be complete once everything is well.
const SETTLE: Duration = Duration::from_mins(3);
/// Longest pause between two faults, in milliseconds.
const FAULT_PAUSE_MILLIS: u64 = 700;

// ------------------------------------------------------------------------------------------------ the agent's process

const AGENT_FOLDER: &str = "CONNLOG_CHAOS_FOLDER";
const AGENT_SERVER: &str = "CONNLOG_CHAOS_SERVER";
const AGENT_TOKEN: &str = "CONNLOG_CHAOS_TOKEN";
const AGENT_SPOOL_BYTES: &str = "CONNLOG_CHAOS_SPOOL_BYTES";

#[test]
#[ignore = "an agent of the chaos test"]
fn agent_process() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let folder = PathBuf::from(variable(AGENT_FOLDER));
    tokio::runtime::Runtime::new().unwrap().block_on(async move {
        let journal = File::options().create(true).append(true).open(folder.join("journal")).unwrap();
        let journal = Arc::new(Mutex::new(journal));
        write_down(&journal, "g");
        let config = Config {
            servers: vec![variable(AGENT_SERVER)],
            token: TokenSource::Text(variable(AGENT_TOKEN)),
            tls: TlsFiles::default(),
            spool: folder.join("spool"),
            max_spool_bytes: variable(AGENT_SPOOL_BYTES).parse().unwrap(),
            agent_version: "chaos".to_owned(),
        };
        let reporter = Arc::new(Reporter::start(config).unwrap().0);
        let overflows = variable(AGENT_SPOOL_BYTES) == SMALL_SPOOL_BYTES.to_string();
        let workers = (0..WORKERS).map(|_| {
            let (reporter, journal, stop) = (Arc::clone(&reporter), Arc::clone(&journal), folder.join("stop"));
            tokio::spawn(async move {
                if overflows { overflow(reporter, journal, stop).await } else { work(reporter, journal, stop).await }
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker.await.unwrap();
        }
        // What is open stays open, and is listed, until the process is killed.
        std::future::pending::<()>().await;
    });
}

async fn work(reporter: Arc<Reporter>, journal: Arc<Mutex<File>>, stop: PathBuf) {
    while !stop.exists() {
        let id = Uuid::new_v4();
        let began = now();
        report(&reporter, &journal, "c", id, connect(id, began)).await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..8))).await;
        if rand::random_ratio(97, 100) {
            let began = rand::random::<bool>().then(|| support::timestamp(began));
            let event = v1::Connection { connected_at: began, ..disconnect(id, now()) };
            report(&reporter, &journal, "d", id, event).await;
        }
    }
}

/// Each event is a row of its own, so that what is missing can be counted.
async fn overflow(reporter: Arc<Reporter>, journal: Arc<Mutex<File>>, stop: PathBuf) {
    while !stop.exists() {
        let reason = Some("x".repeat(1000));
        let id = Uuid::new_v4();
        report(&reporter, &journal, "d", id, v1::Connection { reason, ..disconnect(id, now()) }).await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..20))).await;
    }
}

async fn report(reporter: &Reporter, journal: &Mutex<File>, kind: &str, id: Uuid, event: v1::Connection) {
    let time = event.timestamp.unwrap();
    let micros = time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000;
    write_down(journal, &format!("? {kind} {id} {micros}"));
    reporter.report(&event).await.unwrap();
    write_down(journal, &format!("! {kind} {id} {micros}"));
}

/// One write, so that a kill leaves whole lines.
fn write_down(journal: &Mutex<File>, line: &str) {
    journal.lock().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
}

// ------------------------------------------------------------------------------------------------ the oracle

/// What is known of a connection: the times of its events, and whether their appends returned.
#[derive(Debug, Clone, Default)]
struct Story {
    connect: Option<(i64, bool)>,
    disconnect: Option<(i64, bool)>,
    generation: usize,
}

/// A row of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Open,
    Ended { at: i64, inferred: bool },
}

/// The stories of an agent, and the number of its last life.
fn read_journal(folder: &Path) -> (BTreeMap<Uuid, Story>, usize) {
    let (mut stories, mut generation) = (BTreeMap::<Uuid, Story>::new(), 0);
    for line in fs::read_to_string(folder.join("journal")).unwrap_or_default().lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [sure, kind, id, micros] = fields[..] else {
            generation += 1;
            continue;
        };
        let story = stories.entry(id.parse().unwrap()).or_default();
        story.generation = generation;
        let event = Some((micros.parse().unwrap(), sure == "!"));
        if kind == "c" { story.connect = event } else { story.disconnect = event }
    }
    (stories, generation)
}

impl Story {
    /// Whether a row, or none, is what the merge rules make of the events whose appends returned. One whose append did
    /// not return may or may not be there.
    fn allows(&self, row: Option<Row>, alive: bool) -> bool {
        let open =
            if alive { matches!(row, Some(Row::Open)) } else { matches!(row, Some(Row::Ended { inferred: true, .. })) };
        let ended = |at: i64| row == Some(Row::Ended { at, inferred: false });
        match (self.connect, self.disconnect) {
            (_, Some((at, true))) => ended(at),
            (_, Some((at, false))) => ended(at) || open,
            (Some((_, true)), None) => open,
            _ => row.is_none() || open,
        }
    }

    fn sure_events(&self) -> usize {
        [self.connect, self.disconnect].into_iter().flatten().filter(|(_, sure)| *sure).count()
    }
}

// ------------------------------------------------------------------------------------------------ the test

struct Agent {
    folder: PathBuf,
    site: Site,
    spool_bytes: u64,
    process: Option<Process>,
}

impl Agent {
    fn start(&mut self, server: &str) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--ignored", "agent_process"]);
        command.env(AGENT_FOLDER, &self.folder).env(AGENT_SERVER, server).env(AGENT_TOKEN, &self.site.token);
        command.env(AGENT_SPOOL_BYTES, self.spool_bytes.to_string()).stdout(std::process::Stdio::null());
        self.process = Some(Process::spawn("agent", &command, "KILL").unwrap());
    }

    fn overflows(&self) -> bool {
        self.spool_bytes == SMALL_SPOOL_BYTES
    }

    fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal(Signal::SIGKILL).unwrap();
        process.wait(PATIENCE).unwrap();
    }
}

struct Stage {
    postgres: PostgresServer,
    url: String,
    ingests: Vec<Option<Binary>>,
    proxy: FaultProxy,
    agents: Vec<Agent>,
    faults: BTreeMap<&'static str, usize>,
}

const FLAGS: [&str; 2] = ["--heartbeat-interval", "1s"];

impl Stage {
    async fn fault(&mut self, random: &mut SmallRng) {
        let pause = Duration::from_millis(random.random_range(50..FAULT_PAUSE_MILLIS));
        let kind = match random.random_range(0..12) {
            0 | 1 => {
                self.proxy.cut();
                "cut"
            }
            2 => {
                self.proxy.stall(true);
                tokio::time::sleep(pause).await;
                self.proxy.stall(false);
                "stall"
            }
            3 => {
                self.proxy.freeze();
                tokio::time::sleep(pause).await;
                self.proxy.cut();
                "half-open"
            }
            4 | 5 => {
                self.proxy.reset();
                "reset mid-frame"
            }
            6 | 7 => {
                self.proxy.switch();
                self.proxy.cut();
                "other replica"
            }
            8 => {
                let number = random.random_range(0..self.ingests.len());
                let mut ingest = self.ingests[number].take().unwrap();
                ingest.process.signal(Signal::SIGKILL).unwrap();
                ingest.process.wait(PATIENCE).unwrap();
                self.ingests[number] = Some(Binary::start_with(&self.url, Some(ingest.address), None, &FLAGS));
                "kill ingest"
            }
            9 => {
                self.postgres.stop_immediately().unwrap();
                tokio::time::sleep(pause).await;
                self.postgres.restart().unwrap();
                "crash PostgreSQL"
            }
            _ => {
                let server = format!("http://{}", self.proxy.address());
                let number = random.random_range(0..self.agents.len());
                self.agents[number].kill();
                self.agents[number].start(&server);
                "kill agent"
            }
        };
        *self.faults.entry(kind).or_default() += 1;
        tokio::time::sleep(pause).await;
    }

    fn accepted(&self) -> usize {
        let stories = self.agents.iter().map(|agent| read_journal(&agent.folder).0);
        stories.map(|stories| stories.values().map(Story::sure_events).sum::<usize>()).sum()
    }

    /// What of the log is not as it must be.
    async fn difference(&self) -> Result<(), String> {
        let client = database_client(&self.url).await.map_err(|error| error.to_string())?;
        // Agents that tell the truth contradict nothing, whatever happens on the way.
        let contradictions = number(&client, "SELECT count(*) FROM contradictions").await;
        if contradictions > 0 {
            return Err(format!("{contradictions} contradictions"));
        }
        let sql = "SELECT connection_id, disconnect_time, disconnect_inferred, connect_time FROM connection_logs";
        let (mut rows, mut starts) = (BTreeMap::new(), BTreeMap::new());
        for row in client.query(sql, &[]).await.map_err(|error| error.to_string())? {
            let (id, at, inferred): (Uuid, Option<DateTime<chrono::Utc>>, bool) = (row.get(0), row.get(1), row.get(2));
            starts.insert(id, row.get::<_, Timestamp>(3).timestamp_micros());
            let row = at.map_or(Row::Open, |at: Timestamp| Row::Ended { at: at.timestamp_micros(), inferred });
            if let Some(other) = rows.insert(id, row) {
                return Err(format!("{id} is there twice, as {row:?} and {other:?}"));
            }
        }
        let mut known = BTreeSet::<Uuid>::new();
        for agent in &self.agents {
            let (stories, generation) = read_journal(&agent.folder);
            known.extend(stories.keys());
            if agent.overflows() {
                continue;
            }
            for (id, story) in stories {
                let row = rows.get(&id).copied();
                if !story.allows(row, story.generation == generation) {
                    return Err(format!("{id} is {row:?}, of {story:?} in life {generation}"));
                }
                if let Some((at, true)) = story.connect
                    && starts.get(&id) != Some(&at)
                {
                    return Err(format!("{id} began at {:?}, of {story:?}", starts.get(&id)));
                }
            }
        }
        if let Some(id) = rows.keys().find(|id| !known.contains(id)) {
            return Err(format!("nobody reported {id}"));
        }
        for agent in self.agents.iter().filter(|agent| agent.overflows()) {
            losses_add_up(&client, agent, &rows).await?;
        }
        Ok(())
    }
}

/// Whether each number of the spool is a row or is counted as lost: what is counted is what was dropped.
async fn losses_add_up(
    client: &tokio_postgres::Client,
    agent: &Agent,
    rows: &BTreeMap<Uuid, Row>,
) -> Result<(), String> {
    let (stories, _) = read_journal(&agent.folder);
    let sql = "SELECT (SELECT sum(committed_seq)::bigint FROM agent_spools WHERE agent_id = $1),
                      (SELECT sum(events)::bigint FROM lost_events WHERE agent_id = $1)";
    let counted = client.query_one(sql, &[&agent.site.agent.agent_id]).await.map_err(|error| error.to_string())?;
    let (committed, lost): (Option<i64>, Option<i64>) = (counted.get(0), counted.get(1));
    let (committed, lost) = (committed.unwrap_or(0), lost.unwrap_or(0));
    let there = stories.keys().filter(|id| rows.contains_key(id)).count();
    let missing = stories.iter().filter(|(id, story)| story.sure_events() > 0 && !rows.contains_key(id)).count();
    let unsure = stories.values().filter(|story| story.sure_events() == 0).count();
    let [there, missing, unsure] = [there, missing, unsure].map(|count| i64::try_from(count).unwrap());
    // An event whose append did not return may have been in what was dropped.
    let adds_up = committed == there + lost && (missing..=missing + unsure).contains(&lost);
    let verdict =
        format!("{committed} numbers, {there} rows, {lost} counted as lost, {missing} missing, {unsure} unsure");
    if adds_up && lost > 0 { Ok(()) } else { Err(format!("the losses do not add up: {verdict}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_the_log_is_what_was_accepted() {
    let target: usize = std::env::var("CONNLOG_CHAOS_EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(EVENTS);
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let postgres = PostgresServer::start(Options::durable()).unwrap();
    let url = postgres.url("postgres");
    let store = Store::new(&StoreConfig::new(&url, "test", 2)).unwrap();
    schema::migrate(&store).await.unwrap();
    roles::set_up(&store).await.unwrap();
    let sites = import_sites(&store, AGENTS + 1).await;
    drop(store);
    let ingests: Vec<_> = (0..2).map(|_| Some(Binary::start_with(&url, None, None, &FLAGS))).collect();
    let addresses = ingests.iter().flatten().map(|ingest: &Binary| ingest.address).collect();
    let proxy = FaultProxy::start(addresses).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut agents = Vec::new();
    for (number, site) in sites.into_iter().enumerate() {
        let own = folder.path().join(number.to_string());
        fs::create_dir(&own).unwrap();
        let spool_bytes = if agents.len() < usize::try_from(AGENTS).unwrap() {
            Config::DEFAULT_SPOOL_BYTES
        } else {
            SMALL_SPOOL_BYTES
        };
        let mut agent = Agent { folder: own, site, spool_bytes, process: None };
        agent.start(&format!("http://{}", proxy.address()));
        agents.push(agent);
    }
    let mut stage = Stage { postgres, url, ingests, proxy, agents, faults: BTreeMap::new() };

    let began = Instant::now();
    let most = Duration::from_mins(20) + Duration::from_millis(10) * u32::try_from(target).unwrap();
    while stage.faults.values().sum::<usize>() < FAULTS || stage.accepted() < target {
        stage.fault(&mut random).await;
        assert!(began.elapsed() < most, "{} events after {:?}", stage.accepted(), stage.faults);
    }
    for agent in &stage.agents {
        fs::write(agent.folder.join("stop"), "").unwrap();
    }
    let deadline = Instant::now() + SETTLE;
    while let Err(difference) = stage.difference().await {
        assert!(Instant::now() < deadline, "seed {seed}: {difference}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let client = database_client(&stage.url).await.unwrap();
    let overflowing = &stage.agents.iter().find(|agent| agent.overflows()).unwrap().site.agent;
    let others = format!("SELECT count(*) FROM lost_events WHERE agent_id <> '{}'", overflowing.agent_id.unwrap());
    assert_eq!(number(&client, &others).await, 0, "nothing of the others was dropped");
    let lost = number(&client, "SELECT sum(events)::bigint FROM lost_events").await;
    assert_eq!(number(&client, "SELECT count(*) FROM rejected_events").await, 0, "nothing was refused");
    let wrong_counts = "SELECT count(*) FROM (SELECT day, sum(entries) AS n, sum(ended) AS ended FROM connection_log_counts GROUP BY day) c
        FULL JOIN (SELECT (connect_time AT TIME ZONE 'UTC')::date AS day, count(*) AS n, count(disconnect_time) AS ended FROM connection_logs GROUP BY 1) h
        USING (day) WHERE (coalesce(c.n, 0), coalesce(c.ended, 0)) <> (coalesce(h.n, 0), coalesce(h.ended, 0))";
    assert_eq!(number(&client, wrong_counts).await, 0, "the counts are those of the rows");
    let open = number(&client, "SELECT count(*) FROM connection_logs WHERE disconnect_time IS NULL").await;
    let inferred = number(&client, "SELECT count(*) FROM connection_logs WHERE disconnect_inferred").await;
    println!("faults: {:?}", stage.faults);
    println!(
        "{} events accepted in {:.0} s: the log is what was accepted; {open} open, {inferred} ends inferred, \
         {lost} lost by the one spool that was too small and none by the others",
        stage.accepted(),
        began.elapsed().as_secs_f64()
    );
}
