//! Counts: whatever writers, sweeps, reopenings and purges do at the same time, in every snapshot they are those of the
//! rows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use connlog_model::event::{Action, AgentEvent, Client, Event, Outcome, Source};
use connlog_model::identity::BootNumber;
use connlog_model::method::Method;
use connlog_model::search::{Search, Status};
use connlog_store::Store;
use connlog_store::infer::{Boot, Hello, SignOfLife};
use connlog_store::read::{PageRequest, Reach};
use connlog_store::write::{Batch, Stamp};
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{self, Site, now};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Mutex;
use uuid::Uuid;

/// Rounds of each of those who change the log.
const ROUNDS: u32 = 60;
/// Connections that they all work on.
const CONNECTIONS: u128 = 40;

/// What the counts say and the rows do not, of one snapshot.
const DIFFERENCE: &str = "
SELECT count(*) FROM (
    SELECT day, organization_id, method, app_name, sum(entries) AS n, sum(ended) AS ended
    FROM connection_log_counts GROUP BY 1, 2, 3, 4
) AS counted FULL JOIN (
    SELECT (connect_time AT TIME ZONE 'UTC')::date AS day, organization_id, method, coalesce(app_name, '') AS app_name,
        count(*) AS n, count(disconnect_time) AS ended
    FROM connection_logs JOIN targets USING (target) GROUP BY 1, 2, 3, 4
) AS there USING (day, organization_id, method, app_name)
WHERE (coalesce(counted.n, 0), coalesce(counted.ended, 0)) <> (coalesce(there.n, 0), coalesce(there.ended, 0))";

/// Of what is listed as ongoing and what is open of closed days, what is only one of the two; and what is open from before what its
/// agent is noted with.
const UNLISTED: &str = "
SELECT (SELECT count(*) FROM ongoing FULL JOIN (
        SELECT id, connect_time, true AS is_there FROM connection_logs, floor
        WHERE disconnect_time IS NULL AND method <= 2 AND connect_time < closed_before) AS open USING (id, connect_time)
    WHERE ongoing.target IS NULL OR open.is_there IS NULL)
    + (SELECT count(*) FROM connection_logs JOIN targets USING (target) JOIN agents USING (agent)
    WHERE disconnect_time IS NULL AND method <= 2 AND (open_since IS NULL OR open_since > connect_time))";

fn event(random: &mut SmallRng, site: &Site, boot: BootNumber) -> Event {
    let number = random.random_range(1..=CONNECTIONS);
    // Connections of a few days, whose beginnings move from day to day as earlier events arrive.
    let time = now() - TimeDelta::minutes(random.random_range(0..6 * 1440));
    let connected_at = random.random_bool(0.4).then(|| time - TimeDelta::minutes(random.random_range(0..3 * 1440)));
    let outcome = Outcome { code: Some(random.random_range(0..3)), ..Outcome::default() };
    let app_name = ["ssh", "cursor", "goland"][random.random_range(0..3)].to_owned();
    let method = if random.random_bool(0.2) { Method::ReconnectingPty } else { Method::Ssh };
    let client = Client { method: Some(method), app_name: Some(app_name), ..fixtures::ssh_client() };
    if random.random_bool(0.1) {
        return fixtures::web(&site.agent, 10_000 + number, time, Method::WorkspaceApp);
    }
    Event::Agent(AgentEvent {
        agent: Arc::clone(&site.agent),
        connection_id: Uuid::from_u128(number),
        boot: Some(boot),
        time,
        time_is_receipt: false,
        source: Source::Agent,
        received_at: time,
        client,
        action: if random.random_bool(0.5) { Action::Connect } else { Action::Disconnect { connected_at, outcome } },
    })
}

async fn write_batches(store: Store, sites: Vec<Site>, boot: BootNumber, shard: i16, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for _ in 0..ROUNDS {
        let site = &sites[random.random_range(0..sites.len())];
        let events = (0..random.random_range(1..12)).map(|_| event(&mut random, site, boot)).collect();
        store.apply_batch(&Batch { events, ..Batch::default() }, shard, now()).await.unwrap();
    }
}

/// Ends what other boots left, and takes it back: each boot lists what the one before did not.
async fn infer(store: Store, site: Site, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let (agent, spool_id) = (&site.agent, Uuid::new_v4());
    for _ in 0..ROUNDS / 2 {
        let (boot_id, stream_id, seen_at) = (Uuid::new_v4(), Uuid::new_v4(), now());
        let hello = Hello {
            agent: Arc::clone(agent),
            spool_id,
            boot_id,
            stream_id,
            first_unacked_seq: 1,
            last_seq: 0,
            received_at: seen_at,
        };
        store.greet(&hello).await.unwrap();
        let boot = Boot { agent, spool_id, boot_id, listed: &[], ended_at: seen_at, live_since: seen_at };
        store.close_other_boots(&boot).await.unwrap();
        let listed: Vec<Uuid> = (1..=CONNECTIONS).filter(|_| random.random_bool(0.5)).map(Uuid::from_u128).collect();
        let stamp = Stamp { agent: Arc::clone(agent), spool_id, stream_id, committed_seq: None, seen_at };
        let sign = SignOfLife { agent: &site.agent, stamp, boot_id, listed: &listed };
        store.sign_of_life(&sign).await.unwrap();
    }
}

/// One at a time purges and compacts.
type Lease = Arc<Mutex<()>>;

/// Trims the oldest days, and drops one, again and again.
async fn purge(store: Store, lease: Lease) {
    for round in 0..ROUNDS / 4 {
        let held = lease.lock().await;
        store.close_days(now()).await.unwrap();
        let cutoff = now() - TimeDelta::days(7) + TimeDelta::hours(i64::from(round));
        let cutoff = store.raise_floor(cutoff, TimeDelta::days(1), Duration::from_secs(5)).await.unwrap();
        for day in store.days_before(cutoff).await.unwrap() {
            store.trim(day, cutoff, 5).await.unwrap();
        }
        if round % 5 == 4
            && let Some(day) = store.days_before(now() - TimeDelta::days(8)).await.unwrap().first()
        {
            store.drop_day(*day, Duration::from_secs(5)).await.unwrap();
        }
        drop(held);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Compacts closed days, again and again until it is `done`, and returns how many it put in place.
async fn compact(store: Store, lease: Lease, done: Arc<AtomicBool>) -> u32 {
    let (mut swapped, run) = (0, Uuid::new_v4());
    while !done.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        for day in store.days_before(now() - TimeDelta::days(3)).await.unwrap() {
            let _held = lease.lock().await;
            assert!(store.take_purge_lease(run).await.unwrap());
            if let Some(compacted) = store.compact(run, day, || true).await.unwrap()
                && store.swap(&compacted, Duration::from_secs(5)).await.unwrap()
            {
                swapped += 1;
            }
        }
    }
    swapped
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_every_snapshot_the_counts_are_those_of_the_rows() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let sites: Vec<Site> = (1..=2).map(|number| fixtures::site(number, number)).collect();
    let directory: Vec<_> = sites.iter().flat_map(|site| site.directory.clone()).collect();
    fixtures::import(&store, &directory, now()).await.unwrap();
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let done = Arc::new(AtomicBool::new(false));
    let checking = tokio::spawn({
        let (mut client, done) = (database.client().await.unwrap(), Arc::clone(&done));
        async move {
            let mut checked = 0;
            while !done.load(Ordering::Relaxed) || checked == 0 {
                let level = tokio_postgres::IsolationLevel::RepeatableRead;
                let snapshot = client.build_transaction().isolation_level(level).read_only(true).start().await.unwrap();
                // Before the snapshot is taken: a partition that is dropped is gone for older snapshots, too.
                snapshot.batch_execute("LOCK TABLE connection_logs IN ACCESS SHARE MODE").await.unwrap();
                let wrong: i64 = snapshot.query_one(DIFFERENCE, &[]).await.unwrap().get(0);
                assert_eq!(wrong, 0, "after {checked} snapshots");
                snapshot.commit().await.unwrap();
                checked += 1;
            }
            checked
        }
    });
    let boot = BootNumber::of(Uuid::new_v4());
    let lease = Lease::default();
    let compacting = tokio::spawn(compact(store.clone(), Arc::clone(&lease), Arc::clone(&done)));
    let mut changing =
        vec![tokio::spawn(infer(store.clone(), sites[0].clone(), seed ^ 7)), tokio::spawn(purge(store.clone(), lease))];
    for shard in 1..=3_i16 {
        let seed = seed ^ u64::try_from(shard).unwrap();
        changing.push(tokio::spawn(write_batches(store.clone(), sites.clone(), boot, shard, seed)));
    }
    for task in changing {
        task.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let swapped = compacting.await.unwrap();
    assert!(swapped > 0);
    println!("{} snapshots agreed, {swapped} days were compacted meanwhile", checking.await.unwrap());

    // And what a search counts is what there is.
    let client = database.client().await.unwrap();
    let unlisted: i64 = client.query_one(UNLISTED, &[]).await.unwrap().get(0);
    assert_eq!(unlisted, 0, "what is listed is what is open of closed days");
    let after = now() - TimeDelta::days(4) - TimeDelta::minutes(77);
    let before = now() - TimeDelta::days(2) - TimeDelta::minutes(5);
    let span = format!("connected_after:\"{}\" connected_before:\"{}\"", after.to_rfc3339(), before.to_rfc3339());
    let late = format!("connected_after:\"{}\"", (now() - TimeDelta::days(3) - TimeDelta::hours(20)).to_rfc3339());
    for kind in [
        "",
        "organization:org-2",
        "method:ssh",
        "type:vscode",
        "app:goland",
        "status:completed",
        "status:ongoing",
        "organization:org-1 status:completed method:reconnecting_pty",
    ] {
        for bounds in ["", &span, &late] {
            let query = format!("{kind} {bounds}");
            let search = Search::parse(&query).unwrap();
            let page = store.page(&search, &Reach::default(), PageRequest::first(1000, now())).await.unwrap().unwrap();
            let there: i64 = client.query_one(&rows_of(&search), &[]).await.unwrap().get(0);
            assert_eq!((page.count.entries, page.count.exact), (there, true), "{query}");
            assert_eq!(i64::try_from(page.entries.len()).unwrap(), there, "{query}");
        }
    }
}

/// The same search, by hand.
fn rows_of(search: &Search) -> String {
    let mut conditions = vec!["true".to_owned()];
    match search.status {
        Some(Status::Ongoing) => conditions.push("disconnect_time IS NULL AND method <= 2".to_owned()),
        Some(Status::Completed) => conditions.push("disconnect_time IS NOT NULL".to_owned()),
        None => {}
    }
    if let Some(organization) = &search.organization {
        conditions.push(format!("organization_id = (SELECT id FROM organizations WHERE name = '{organization}')"));
    }
    if let Some(method) = search.method {
        conditions.push(format!("method = {}", method.code()));
    }
    if search.connection_type.is_some() {
        conditions.push("method = 1 AND app_name = 'cursor'".to_owned());
    }
    if let Some(app) = &search.app {
        conditions.push(format!("app_name = '{app}'"));
    }
    if let Some(after) = search.connected_after {
        conditions.push(format!("connect_time >= '{}'", after.to_rfc3339()));
    }
    if let Some(before) = search.connected_before {
        conditions.push(format!("connect_time <= '{}'", before.to_rfc3339()));
    }
    format!("SELECT count(*) FROM connection_logs JOIN targets USING (target) WHERE {}", conditions.join(" AND "))
}
