//! Forced races: the shipped write path, sweep, reopening, purge, closing and compaction, stepped statement by statement through
//! every order.
//!
//! Each actor has a connection of its own through a gate (`connlog_testkit::gate`), which holds each statement until the
//! explorer lets it through; a statement that blocks goes on when its blocker ends. What may come out is what some order
//! of whole actions gives (`oracle`), and nothing else: never two rows, and what is counted and listed is what is there.
//! Mutations of the shipped SQL must be caught.
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

use connlog_testkit::gate::{Change, changing, changing_function};

use self::actions::Action;
use self::oracle::Initial;
use self::world::World;

/// Schedules of a scenario, unless everything is asked for.
const CAP: usize = 5;

fn cap(by_default: usize) -> usize {
    if std::env::var_os("CONNLOG_TEST_FULL").is_some() { usize::MAX } else { by_default }
}

/// Explores each combination on each initial state, and returns what went wrong.
async fn explore(world: &mut World, combinations: &[Vec<Action>], cap: usize, in_order: usize) -> (usize, Vec<String>) {
    let (mut schedules, mut failures) = (0, Vec::new());
    for combination in combinations {
        for initial in Initial::ALL {
            let outcome = schedule::explore(world, initial, combination, cap, in_order).await;
            schedules += outcome.schedules;
            failures.extend(outcome.failures);
            if !failures.is_empty() {
                return (schedules, failures);
            }
        }
    }
    (schedules, failures)
}

fn pairs() -> Vec<Vec<Action>> {
    let all = Action::ALL;
    let mut pairs: Vec<_> = (0..all.len()).flat_map(|a| (a..all.len()).map(move |b| vec![all[a], all[b]])).collect();
    pairs.retain(|pair| have_one_lease(pair));
    pairs
}

fn triples_with_maintenance() -> Vec<Vec<Action>> {
    let mut triples = Vec::new();
    for pair in pairs() {
        for third in [Action::Sweep, Action::Purge, Action::Close, Action::Compact] {
            let mut triple = pair.clone();
            triple.push(third);
            triples.push(triple);
        }
    }
    triples.retain(|triple| have_one_lease(triple));
    triples
}

/// One run at a time purges and compacts: the others are refused before they touch anything.
fn have_one_lease(actions: &[Action]) -> bool {
    actions.iter().filter(|action| matches!(action, Action::Purge | Action::Compact)).count() < 2
}

fn report(what: &str, schedules: usize, failures: &[String]) {
    println!("{what}: {schedules} schedules, {} wrong", failures.len());
    assert!(schedules > 0);
    assert!(failures.is_empty(), "{} wrong outcomes, the first: {}", failures.len(), failures[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_in_every_order_gives_the_row_of_the_rules() {
    let mut world = World::new(2, None).await;
    let (schedules, failures) = explore(&mut world, &pairs(), cap(CAP), cap(CAP / 2)).await;
    report("pairs", schedules, &failures);
    assert_eq!(world.deadlocks().await, 0, "agents first never deadlocks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn triples_with_maintenance_give_the_row_of_the_rules() {
    let mut world = World::new(3, None).await;
    let (schedules, failures) = explore(&mut world, &triples_with_maintenance(), cap(1), cap(0)).await;
    report("triples", schedules, &failures);
    assert_eq!(world.deadlocks().await, 0, "agents first never deadlocks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connections_in_opposite_orders_never_deadlock() {
    let mut world = World::new(2, None).await;
    world.connections = 2;
    let (schedules, failures) = explore(&mut world, &pairs(), cap(4), cap(2)).await;
    report("two connections", schedules, &failures);
    assert_eq!(world.deadlocks().await, 0, "agents first never deadlocks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents_in_opposite_orders_never_deadlock() {
    let mut world = World::new(2, None).await;
    (world.agents, world.connections) = (2, 2);
    let (schedules, failures) = explore(&mut world, &pairs(), cap(2), cap(1)).await;
    report("two agents", schedules, &failures);
    assert_eq!(world.deadlocks().await, 0, "agents first never deadlocks");
}

/// Explores with SQL changed on the wire, or a function changed in the database. Returns whether any outcome was wrong, or the
/// server had to break a deadlock.
async fn is_caught(mutation: Mutation, combinations: &[Vec<Action>]) -> bool {
    let (rewrite, prepare) = match mutation {
        Mutation::Statements(changes) => (Some(changing(changes)), String::new()),
        Mutation::Function(name, changes) => (None, changing_function(name, changes)),
    };
    let mut world = World::new(2, rewrite).await;
    world.execute(&prepare).await;
    let (schedules, failures) = explore(&mut world, combinations, 150, 0).await;
    println!(
        "{} of {schedules} schedules wrong, such as: {}",
        failures.len(),
        failures.first().map_or("", String::as_str)
    );
    !failures.is_empty() || world.deadlocks().await > 0
}

/// A change of what is shipped: where something has a text, it has another.
#[derive(Clone, Copy)]
enum Mutation {
    /// Of statements, each by its name.
    Statements(&'static [Change]),
    /// Of the function of a name, in several places.
    Function(&'static str, &'static [(&'static str, &'static str)]),
}

/// The list of what is open is not compared with the counts.
const WITHOUT_COUNTS: (&str, &str) =
    ("<> (\n            SELECT coalesce", "IS NULL AND 0 <> (\n            SELECT coalesce");

macro_rules! caught {
    ($($test:ident: $mutation:expr, $([$($action:ident),+]),+;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            assert!(is_caught($mutation, &[$(vec![$(Action::$action),+]),+]).await);
        }
    )+};
}

caught! {
    agents_that_are_not_locked_are_caught:
        Mutation::Statements(&[("lock_agents", " FOR NO KEY UPDATE", "")]),
        [Connect, EarlierConnect], [EarlierConnect, Disconnect];
    // Its look-ups see what the statement that locks the agents sees.
    a_raised_isolation_is_caught:
        Mutation::Statements(&[("begin_log_write", "READ COMMITTED", "REPEATABLE READ")]),
        [EarlierConnect, ConnectAndDisconnect];
    a_batch_that_does_not_lock_the_log_is_caught:
        Mutation::Statements(&[("begin_log_write", "; LOCK TABLE ONLY connection_logs IN ROW EXCLUSIVE MODE", "")]),
        [EarlierConnect, Purge];
    a_sweep_that_trusts_what_it_read_before_is_caught:
        Mutation::Statements(&[("spools_of_agents", "boot_id, last_seen_at", "boot_id, '2000-01-01Z'::timestamptz AS last_seen_at")]),
        [Sweep, Reopen];
    closing_without_a_lock_is_caught:
        Mutation::Function("close_days", &[("LOCK TABLE ONLY public.connection_logs IN SHARE MODE;", "")]),
        [Connect, Close], [Disconnect, Close];
    closing_without_what_changed_meanwhile_is_caught:
        Mutation::Function("close_days", &[("NOT pg_visible_in_snapshot(xid, collected_at)", "false"), WITHOUT_COUNTS]),
        [Connect, Close];
    closing_without_what_was_open_before_is_caught:
        Mutation::Function("close_days", &[("collected ||", "'{}'::uuid[] ||"), WITHOUT_COUNTS]),
        [Connect, Close];
    a_swap_without_what_changed_meanwhile_is_caught:
        Mutation::Function("swap_compacted", &[("OR public.apply_to_compacted(wanted_by, swap_compacted.day) IS NULL", "")]),
        [Disconnect, Compact];
    a_floor_that_is_read_before_the_log_is_locked_is_caught:
        Mutation::Statements(&[
            ("begin_log_write", "; LOCK TABLE", "; SELECT set_config('test.floor', cutoff::text, true) FROM floor; LOCK TABLE"),
            ("read_bounds", "SELECT greatest(cutoff,", "SELECT greatest(current_setting('test.floor')::timestamptz,"),
        ]),
        [EarlierConnect, Purge];
    a_floor_that_is_raised_without_a_lock_is_caught:
        Mutation::Function("raise_floor", &[("LOCK TABLE ONLY public.connection_logs IN SHARE MODE;", "")]),
        [EarlierConnect, Purge];
    a_swap_that_locks_the_day_before_the_log_is_caught:
        Mutation::Function("swap_compacted", &[(
            "PERFORM public.hold_day",
            "EXECUTE format('LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE', day_name); PERFORM public.hold_day",
        )]),
        [Disconnect, Compact];
    a_drop_without_its_test_is_caught:
        Mutation::Function("drop_day", &[("OR EXISTS (SELECT FROM public.ongoing WHERE connect_time >= day_start AND connect_time < day_end)", "")]),
        [Reopen, Purge];
    a_copy_whose_snapshot_is_late_is_caught:
        Mutation::Function("index_compacted", &[("is_indexed = held.is_copied", "is_indexed = held.is_copied, since = pg_current_snapshot()")]),
        [Disconnect, Compact];
}
