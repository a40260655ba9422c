//! Forced races: the shipped write path, sweep, reopening and purge, stepped statement by statement through every order.
//!
//! Each actor has a connection of its own through a gate (`connlog_testkit::gate`), which holds each statement until the
//! explorer lets it through; a statement that blocks goes on when its blocker ends. What may come out is what some order
//! of whole actions gives (`oracle`), and nothing else: never a connection that is open and in history, never two rows.
//! The mutation check changes SQL on the wire and must be caught.
//!
//! `CONNLOG_TEST_FULL=1` explores every schedule; by default each scenario is capped, half of it in order and half at
//! random.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "explorer/actions.rs"]
mod actions;
#[path = "explorer/oracle.rs"]
mod oracle;
#[path = "explorer/schedule.rs"]
mod schedule;
#[path = "explorer/world.rs"]
mod world;

use std::sync::Arc;

use connlog_testkit::gate::Rewrite;

use self::actions::Action;
use self::oracle::Initial;
use self::world::World;

/// Schedules of a scenario, unless everything is asked for.
const CAP: usize = 60;

fn cap(by_default: usize) -> usize {
    if std::env::var_os("CONNLOG_TEST_FULL").is_some() { usize::MAX } else { by_default }
}

/// Explores each combination on each initial state, and returns what went wrong.
async fn explore(world: &mut World, combinations: &[Vec<Action>], cap: usize) -> (usize, Vec<String>) {
    let (mut schedules, mut failures) = (0, Vec::new());
    for combination in combinations {
        for initial in Initial::ALL {
            let outcome = schedule::explore(world, initial, combination, cap).await;
            schedules += outcome.schedules;
            failures.extend(outcome.failures);
        }
    }
    (schedules, failures)
}

fn pairs() -> Vec<Vec<Action>> {
    let all = Action::ALL;
    (0..all.len()).flat_map(|a| (a..all.len()).map(move |b| vec![all[a], all[b]])).collect()
}

fn triples_with_a_sweep_or_a_purge() -> Vec<Vec<Action>> {
    let mut triples = Vec::new();
    for pair in pairs() {
        for third in [Action::Sweep, Action::Purge] {
            let mut triple = pair.clone();
            triple.push(third);
            // Two purges at once are refused before they touch anything.
            if triple.iter().filter(|action| **action == Action::Purge).count() < 2 {
                triples.push(triple);
            }
        }
    }
    triples
}

fn report(what: &str, schedules: usize, failures: &[String]) {
    println!("{what}: {schedules} schedules, {} wrong", failures.len());
    assert!(schedules > 0);
    assert!(failures.is_empty(), "{} wrong outcomes, the first: {}", failures.len(), failures[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_in_every_order_gives_the_row_of_the_rules() {
    let mut world = World::new(2, None).await;
    let (schedules, failures) = explore(&mut world, &pairs(), cap(CAP)).await;
    report("pairs", schedules, &failures);
    assert_eq!(world.deadlocks().await, 0, "keys first never deadlocks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triples_with_a_sweep_or_a_purge_give_the_row_of_the_rules() {
    let mut world = World::new(3, None).await;
    let (schedules, failures) = explore(&mut world, &triples_with_a_sweep_or_a_purge(), cap(4)).await;
    report("triples", schedules, &failures);
    assert_eq!(world.deadlocks().await, 0, "keys first never deadlocks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_in_opposite_orders_never_deadlock() {
    let mut world = World::new(2, None).await;
    world.connections = 2;
    let (schedules, failures) = explore(&mut world, &pairs(), cap(12)).await;
    report("two connections", schedules, &failures);
    assert_eq!(world.deadlocks().await, 0, "keys first never deadlocks");
}

/// Explores with SQL changed on the wire, and returns whether any outcome was wrong.
async fn is_caught(rewrite: Rewrite, prepare: &str, combinations: &[Vec<Action>]) -> bool {
    let mut world = World::new(2, Some(rewrite)).await;
    world.execute(prepare).await;
    let (schedules, failures) = explore(&mut world, combinations, 150).await;
    println!(
        "{} of {schedules} schedules wrong, such as: {}",
        failures.len(),
        failures.first().map_or("", String::as_str)
    );
    !failures.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_do_not_lock_are_caught() {
    let rewrite: Rewrite = Arc::new(|sql| sql.starts_with("-- lock_keys").then(|| sql.replace(" FOR UPDATE", "")));
    assert!(
        is_caught(
            rewrite,
            "",
            &[vec![Action::Connect, Action::Disconnect], vec![Action::Disconnect, Action::OtherDisconnect]]
        )
        .await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_before_the_keys_is_caught() {
    // The statement before the insertion looks up with its own snapshot and leaves what it saw for the later statement.
    let rewrite: Rewrite = Arc::new(|sql| {
        if sql.starts_with("-- lock_keys") {
            let lock = &sql[sql.find("SELECT").unwrap()..];
            Some(format!(
                "-- lock_keys\nWITH seen AS (INSERT INTO seen_in_history SELECT * FROM connection_logs WHERE id = ANY($1::uuid[])) {lock}"
            ))
        } else if sql.starts_with("-- look_up_history") {
            let parts: Vec<&str> = sql.split(" FROM connection_logs_").collect();
            let (first, rest) = parts.split_first().unwrap();
            // Each part begins with the digits of a day.
            Some(rest.iter().fold((*first).to_owned(), |sql, part| sql + " FROM seen_in_history" + &part[8..]))
        } else {
            None
        }
    });
    let prepare = "CREATE TABLE seen_in_history (LIKE connection_logs)";
    assert!(
        is_caught(
            rewrite,
            prepare,
            &[vec![Action::Connect, Action::ConnectAndDisconnect], vec![Action::Connect, Action::Disconnect]]
        )
        .await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_isolation_is_caught() {
    let rewrite: Rewrite =
        Arc::new(|sql| sql.starts_with("START TRANSACTION").then(|| sql.replace("READ COMMITTED", "REPEATABLE READ")));
    assert!(
        is_caught(
            rewrite,
            "",
            &[vec![Action::Connect, Action::ConnectAndDisconnect], vec![Action::Connect, Action::Disconnect]]
        )
        .await
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_floor_read_with_its_lock_is_caught() {
    let rewrite: Rewrite = Arc::new(|sql| {
        if sql.starts_with("-- share_floor") {
            Some("-- share_floor\nSELECT".to_owned())
        } else if sql.starts_with("-- read_floor") {
            Some(
                "-- read_floor\nSELECT greatest(cutoff, '0001-01-01 00:00:00+00'), \
                 pg_advisory_xact_lock_shared(x'636f6e6e'::int, 1) FROM retention_floor"
                    .to_owned(),
            )
        } else {
            None
        }
    });
    assert!(is_caught(rewrite, "", &[vec![Action::EarlierConnect, Action::Purge]]).await);
}
