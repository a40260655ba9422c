//! Runs jobs side by side, and says each few seconds how far it is.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Seek as _};
use std::process::{Child, Stdio};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use connlog_testkit::postgres::target_dir;

use super::job::Job;
use super::summary::{Outcome, Verdict};
use super::{Setting, interrupt};
use crate::command::PROGRESS_INTERVAL;

/// How long one job may take, unless something else is asked for.
const LIMIT: Duration = Duration::from_mins(10);
/// How often a running job is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Jobs for each core: many tests wait for a server or for a time to pass.
const JOBS_PER_CORE: usize = 2;
/// Names of jobs in a line of progress.
const NAMED: usize = 3;

/// Runs all jobs with `variables` in their environment. Tests run side by side, steps of xtask alone after them.
/// After an interruption those that did not end are missing.
pub(super) fn run(jobs: Vec<Job>, variables: &[(String, String)], setting: &Setting) -> Vec<Outcome> {
    let mut earlier = Durations::read();
    let (mut steps, mut tests): (Vec<_>, Vec<_>) = jobs.into_iter().partition(Job::is_step);
    // The longest first, so that none of them runs alone at the end.
    tests.sort_by_key(|job| std::cmp::Reverse(earlier.of(job)));
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let board = Board::new(tests.len() + steps.len());
    let mut outcomes = board.work(tests, cores * JOBS_PER_CORE, variables, setting);
    outcomes.extend(board.work(std::mem::take(&mut steps), 1, variables, setting));
    for outcome in &outcomes {
        earlier.note(outcome);
    }
    if let Err(error) = earlier.write() {
        println!("how long the tests took cannot be kept: {error:#}");
    }
    outcomes
}

/// What is known of all jobs while they run.
struct Board {
    state: Mutex<State>,
    changed: Condvar,
    began: Instant,
    total: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    running: BTreeMap<String, Instant>,
    done: Vec<Outcome>,
    counted: (usize, usize),
    at_work: usize,
}

impl Board {
    fn new(total: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), began: Instant::now(), total }
    }

    /// Runs jobs, `side_by_side` of them at once.
    fn work(
        &self,
        jobs: Vec<Job>,
        side_by_side: usize,
        variables: &[(String, String)],
        setting: &Setting,
    ) -> Vec<Outcome> {
        self.lock().waiting.extend(jobs);
        std::thread::scope(|scope| {
            self.lock().at_work = side_by_side;
            for _ in 0..side_by_side {
                scope.spawn(|| {
                    let _at_work = AtWork(self);
                    while let Some(job) = self.next() {
                        let outcome = execute(&job, variables, setting);
                        self.note(outcome);
                    }
                });
            }
            self.tell_progress();
        });
        std::mem::take(&mut self.lock().done)
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        let job = state.waiting.pop_front().filter(|_| !interrupt::has_come())?;
        state.running.insert(job.name.clone(), Instant::now());
        Some(job)
    }

    fn note(&self, outcome: Outcome) {
        // What ends then was stopped: it says nothing of the test.
        if interrupt::has_come() {
            return;
        }
        if let Verdict::Failed { output } = &outcome.verdict {
            println!("FAILED {} after {:.1} s\n{output}", outcome.name, outcome.elapsed.as_secs_f64());
        }
        let mut state = self.lock();
        state.running.remove(&outcome.name);
        state.counted.0 += 1;
        state.counted.1 += usize::from(matches!(outcome.verdict, Verdict::Failed { .. }));
        state.done.push(outcome);
    }

    /// Prints a line each few seconds until nobody is at work.
    fn tell_progress(&self) {
        let mut state = self.lock();
        while state.at_work > 0 {
            let (again, waited) = self
                .changed
                .wait_timeout_while(state, PROGRESS_INTERVAL, |state| state.at_work > 0)
                .expect("no one panics while holding the board");
            state = again;
            if waited.timed_out() {
                println!("{}", self.progress(&state));
            }
        }
    }

    fn progress(&self, state: &State) -> String {
        let mut running: Vec<_> = state.running.iter().collect();
        running.sort_by_key(|(_, since)| **since);
        let named = running.iter().take(NAMED).map(|(name, since)| format!("{name} ({} s)", since.elapsed().as_secs()));
        let (done, failed) = state.counted;
        let elapsed = self.began.elapsed().as_secs();
        format!(
            "{elapsed:>4} s: {done} of {} done, {failed} failed; {}",
            self.total,
            named.collect::<Vec<_>>().join(", ")
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding the board")
    }
}

/// One of those who work; at its end, a panic too, it is none of them any more.
struct AtWork<'a>(&'a Board);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.lock().at_work -= 1;
        self.0.changed.notify_all();
    }
}

fn execute(job: &Job, variables: &[(String, String)], setting: &Setting) -> Outcome {
    let began = Instant::now();
    let verdict =
        attempt(job, variables, setting).unwrap_or_else(|error| Verdict::Failed { output: format!("{error:#}") });
    Outcome { name: job.name.clone(), elapsed: began.elapsed(), verdict }
}

fn attempt(job: &Job, variables: &[(String, String)], setting: &Setting) -> Result<Verdict> {
    let limit = setting.limit.unwrap_or(LIMIT);
    let mut command = job.command(setting.shows_output);
    // One file for both, so that they stay in order; a pipe would have to be read while the job runs.
    let mut output = tempfile::tempfile()?;
    command.envs(variables.iter().cloned()).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", job.name))?;
    let status = wait(&mut child, limit)?;
    let mut text = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(match status {
        None => Verdict::Failed { output: format!("{text}\nstill running after {} s", limit.as_secs()) },
        Some(status) if !status.success() => Verdict::Failed { output: format!("{text}\nended with {status}") },
        Some(_) => {
            if setting.shows_output {
                println!("{}:\n{text}", job.name);
            }
            Verdict::of_success(&text, job.is_step())
        }
    })
}

/// Waits for the end of a job, and kills it at its limit, and when this program is interrupted.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() > limit || interrupt::has_come() {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// How long jobs took in earlier runs, kept beside what is built.
struct Durations(BTreeMap<String, u64>);

impl Durations {
    fn read() -> Self {
        let text = std::fs::read_to_string(Self::file()).unwrap_or_default();
        Self(serde_json::from_str(&text).unwrap_or_default())
    }

    fn write(&self) -> Result<()> {
        Ok(std::fs::write(Self::file(), serde_json::to_string(&self.0)?)?)
    }

    /// In ms; of one that never ran, more than of any other.
    fn of(&self, job: &Job) -> u64 {
        self.0.get(&job.name).copied().unwrap_or(u64::MAX)
    }

    fn note(&mut self, outcome: &Outcome) {
        self.0.insert(outcome.name.clone(), u64::try_from(outcome.elapsed.as_millis()).unwrap_or(u64::MAX));
    }

    fn file() -> std::path::PathBuf {
        target_dir().join("test-times.json")
    }
}
