//! One scenario, stepped through its schedules.

use std::time::{Duration, Instant};

use connlog_testkit::gate::{Report, Waiting};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use tokio::task::JoinHandle;

use crate::actions::Action;
use crate::oracle::{Initial, outcomes};
use crate::world::World;

/// Time after which a statement that was let through is asked whether it is blocked.
const SETTLE: Duration = Duration::from_micros(1500);
/// Time after which a schedule has hung.
const PATIENCE: Duration = Duration::from_secs(30);
/// The statement that each actor ends with: what comes before it, a rollback too, is done by then.
const LAST: &str = "ping";
/// Statements that commute with everything the others do, so that no order of them matters.
const COMMUTING: [&str; 17] = [
    "begin_write",
    "rollback",
    "add_counts",
    "add_changes",
    "note_open",
    "insert_contradictions",
    "set_lock_timeout",
    "agent_is_deleted",
    "silent_agents",
    "number_key",
    "add_agents",
    "agents_by_number",
    "add_targets",
    "targets_by_number",
    "targets_of_agents",
    "open_of_day",
    "take_purge_lease",
];
/// These matter only if somebody takes part who changes what is written where.
const BOUNDS: [&str; 2] = ["begin_log_write", "read_bounds"];

/// What the schedules of a scenario came to.
#[derive(Default)]
pub struct Explored {
    pub schedules: usize,
    pub failures: Vec<String>,
}

enum Stage {
    AtGate(Waiting),
    Running,
    Blocked,
    Done,
}

/// Explores a scenario: in order, until every schedule is done or `in_order` of them, then at random up to `cap`.
pub async fn explore(world: &mut World, initial: Initial, actions: &[Action], cap: usize, in_order: usize) -> Explored {
    let allowed = outcomes(initial, actions);
    let mut random = SmallRng::seed_from_u64(7);
    let mut explored = Explored::default();
    let mut prefix = Vec::new();
    while explored.schedules < cap && explored.failures.is_empty() {
        let in_order = explored.schedules < in_order;
        if !in_order {
            prefix.clear();
        }
        let site = world.begin(initial).await;
        let run = Run::start(world, actions, &site).await;
        let ran = run.finish(world, &prefix, (!in_order).then_some(&mut random)).await;
        explored.schedules += 1;
        let mut problem = ran.failures.into_iter().next();
        for connection in &site.connections {
            match world.outcome(connection).await {
                Err(problem_found) => problem = Some(problem_found),
                Ok(outcome) if !allowed.contains(&outcome) => {
                    problem = Some(format!("{outcome:?} is none of {allowed:?}"));
                }
                Ok(_) => {}
            }
        }
        // Rows that were there before the floor was raised may await the next round of the purge; none comes back.
        if problem.is_none() && initial == Initial::Nothing && world.purged_rows_came_back().await {
            problem = Some("a row was written below the floor after the floor was raised".to_owned());
        }
        if problem.is_none() && !world.counts_are_right().await {
            problem = Some("the counts are not those of the rows".to_owned());
        }
        if problem.is_none() && !world.what_is_open_of_closed_days_is_listed().await {
            problem = Some("what is listed as ongoing is not what is open of closed days".to_owned());
        }
        if let Some(problem) = problem {
            explored.failures.push(format!("{initial:?} {actions:?}: {problem}; schedule: {}", ran.trace.join(" | ")));
        }
        if in_order {
            match next_prefix(&ran.choices) {
                Some(next) => prefix = next,
                None => break,
            }
        }
    }
    explored
}

/// The next schedule in order: the last choice that has an alternative takes it.
fn next_prefix(choices: &[(usize, Vec<usize>)]) -> Option<Vec<usize>> {
    for (position, (chosen, enabled)) in choices.iter().enumerate().rev() {
        let index = enabled.iter().position(|actor| actor == chosen)?;
        if let Some(next) = enabled.get(index + 1) {
            let mut prefix: Vec<usize> = choices[..position].iter().map(|(actor, _)| *actor).collect();
            prefix.push(*next);
            return Some(prefix);
        }
    }
    None
}

/// A schedule that ran: what was chosen among what was enabled, what happened, and which actions failed.
struct Ran {
    choices: Vec<(usize, Vec<usize>)>,
    trace: Vec<String>,
    failures: Vec<String>,
}

struct Run {
    stages: Vec<Stage>,
    names: Vec<String>,
    /// Each returns what its action failed with, if it did.
    tasks: Vec<JoinHandle<Option<String>>>,
    with_bounds: bool,
    trace: Vec<String>,
}

impl Run {
    async fn start(world: &mut World, actions: &[Action], site: &crate::world::Site) -> Self {
        let mut run = Self {
            stages: Vec::new(),
            names: vec![String::new(); actions.len()],
            tasks: Vec::new(),
            with_bounds: actions.iter().any(|action| matches!(action, Action::Purge | Action::Close | Action::Compact)),
            trace: Vec::new(),
        };
        for (number, action) in actions.iter().copied().enumerate() {
            world.actors[number].gate.close().await;
            let (store, site) = (world.actors[number].store.clone(), site.clone());
            let shard = i16::try_from(number).unwrap() + 1;
            run.tasks.push(tokio::spawn(async move {
                let performed = action.perform(&store, site, shard, number % 2 == 1).await;
                store.ping().await.unwrap();
                performed.err().map(|error| format!("{action:?} failed: {error}"))
            }));
            run.stages.push(Stage::Running);
        }
        for number in 0..actions.len() {
            run.arrive(world, number).await;
        }
        run
    }

    /// Runs to the end: as `prefix` says, then by chance or always the first.
    async fn finish(mut self, world: &mut World, prefix: &[usize], mut random: Option<&mut SmallRng>) -> Ran {
        let mut choices = Vec::new();
        while !self.stages.iter().all(|stage| matches!(stage, Stage::Done)) {
            let enabled: Vec<usize> =
                (0..self.stages.len()).filter(|actor| matches!(self.stages[*actor], Stage::AtGate(_))).collect();
            if enabled.is_empty() {
                // Everybody waits for somebody: the server breaks the deadlock.
                tokio::time::sleep(Duration::from_millis(2)).await;
                self.wake(world).await;
                continue;
            }
            let wanted = match (prefix.get(choices.len()), &mut random) {
                (Some(actor), _) => *actor,
                (None, Some(random)) => *enabled.choose(*random).unwrap(),
                (None, None) => enabled[0],
            };
            let chosen = if enabled.contains(&wanted) { wanted } else { enabled[0] };
            choices.push((chosen, enabled));
            self.let_through(world, chosen).await;
            self.wake(world).await;
        }
        let mut failures = Vec::new();
        for (task, actor) in self.tasks.into_iter().zip(&mut world.actors) {
            failures.extend(tokio::time::timeout(PATIENCE, task).await.expect("the actor ends").unwrap());
            actor.gate.reopen().await;
        }
        Ran { choices, trace: self.trace, failures }
    }

    async fn let_through(&mut self, world: &mut World, actor: usize) {
        let Stage::AtGate(waiting) = std::mem::replace(&mut self.stages[actor], Stage::Running) else {
            unreachable!("only what waits is let through")
        };
        self.names[actor].clone_from(&waiting.name);
        waiting.release();
        self.settle(world, actor).await;
    }

    /// Waits until the running statement of `actor` is answered, and its next one waits at the gate; or it is blocked.
    async fn settle(&mut self, world: &mut World, actor: usize) {
        loop {
            match tokio::time::timeout(SETTLE, world.actors[actor].gate.report()).await {
                Ok(Ok(Report::Answered)) => {
                    self.trace.push(format!("{actor} {}", self.names[actor]));
                    self.arrive(world, actor).await;
                    return;
                }
                // What it waited for was only to be prepared.
                Ok(Ok(Report::Arrived(waiting))) => {
                    Box::pin(self.arrived(world, actor, waiting)).await;
                    return;
                }
                Ok(Err(error)) => panic!("{error}"),
                Err(_) if world.is_blocked(actor).await => {
                    if !matches!(self.stages[actor], Stage::Blocked) {
                        self.trace.push(format!("{actor} {} waits", self.names[actor]));
                    }
                    self.stages[actor] = Stage::Blocked;
                    return;
                }
                Err(_) => {}
            }
        }
    }

    /// Waits for the next statement of `actor`, unless it is blocked before it has one.
    async fn arrive(&mut self, world: &mut World, actor: usize) {
        let began = Instant::now();
        loop {
            match tokio::time::timeout(SETTLE, world.actors[actor].gate.report()).await {
                Ok(Ok(Report::Arrived(waiting))) => return self.arrived(world, actor, waiting).await,
                Ok(Ok(Report::Answered)) => unreachable!("an answer comes after its statement"),
                Ok(Err(error)) => panic!("{error}"),
                // A statement takes locks when it is prepared, too.
                Err(_) if world.is_blocked(actor).await => {
                    self.stages[actor] = Stage::Blocked;
                    return;
                }
                Err(_) => {}
            }
            assert!(began.elapsed() < PATIENCE, "actor {actor} does not go on after {}", self.trace.join(" | "));
        }
    }

    /// What commutes goes through at once; the last statement ends the actor.
    async fn arrived(&mut self, world: &mut World, actor: usize, waiting: Waiting) {
        let commutes = COMMUTING.iter().any(|name| waiting.name.starts_with(name))
            || (!self.with_bounds && BOUNDS.contains(&waiting.name.as_str()));
        if waiting.name == LAST {
            waiting.release();
            let answer = tokio::time::timeout(PATIENCE, world.actors[actor].gate.report()).await;
            assert!(matches!(answer, Ok(Ok(Report::Answered))), "the actor's last statement is answered");
            self.stages[actor] = Stage::Done;
        } else if commutes {
            self.names[actor].clone_from(&waiting.name);
            self.stages[actor] = Stage::Running;
            waiting.release();
            Box::pin(self.settle(world, actor)).await;
        } else {
            self.stages[actor] = Stage::AtGate(waiting);
        }
    }

    /// Lets those go on whose blocker has ended.
    async fn wake(&mut self, world: &mut World) {
        for actor in 0..self.stages.len() {
            if matches!(self.stages[actor], Stage::Blocked) && !world.is_blocked(actor).await {
                self.settle(world, actor).await;
            }
        }
    }
}
