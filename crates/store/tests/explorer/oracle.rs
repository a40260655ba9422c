//! What may come out: the outcomes of all orders of whole steps, by the merge rules alone. Hours are small integers.

use std::collections::BTreeSet;

use crate::actions::{Action, FLOOR, LAST_SEEN};

/// An atomic step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Connect { at: i64 },
    Disconnect { at: i64, start: Option<i64>, reason: &'static str },
    Batch(Vec<Step>),
    Sweep,
    Reopen,
    Restart,
    RaiseFloor,
    PurgeOpen,
    Trim,
    Drop,
}

/// A row. Its beginning is `known` if an event said it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub start: i64,
    pub known: bool,
    pub end: Option<End>,
}

/// How a row ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub at: i64,
    pub reason: String,
    pub inferred: bool,
}

/// What is there at the end: the row, and how many events contradict it.
pub type Outcome = (Option<Row>, usize);

/// What is there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    Nothing,
    Open,
    /// Open, on a day that is closed.
    Listed,
    Completed,
    Inferred,
    /// Inferred, on the day below the floor that the purge raises.
    InferredEarlier,
}

impl Initial {
    pub const ALL: [Self; 6] =
        [Self::Nothing, Self::Open, Self::Listed, Self::Completed, Self::Inferred, Self::InferredEarlier];

    /// The events that lead there; an inferred end comes from a sweep after them.
    pub fn events(self) -> Vec<Step> {
        let connect = Step::Connect { at: 15 };
        match self {
            Self::Nothing => vec![],
            Self::Open | Self::Listed | Self::Inferred => vec![connect],
            Self::InferredEarlier => vec![Step::Connect { at: 5 }],
            Self::Completed => vec![connect, Step::Disconnect { at: 24, start: None, reason: "z" }],
        }
    }
}

/// The state that steps change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    row: Option<Row>,
    /// What contradicts the row, or did while it was there.
    contradictions: BTreeSet<String>,
    floor: i64,
    /// The agent gave a sign of life during the story.
    alive: bool,
    /// The row is open under a boot.
    has_boot: bool,
}

/// What may be there at the end.
pub fn outcomes(initial: Initial, actions: &[Action]) -> BTreeSet<Outcome> {
    let mut state =
        State { row: None, contradictions: BTreeSet::new(), floor: i64::MIN, alive: false, has_boot: false };
    state.step(&Step::Batch(initial.events()));
    if matches!(initial, Initial::Inferred | Initial::InferredEarlier) {
        state.step(&Step::Sweep);
    }
    let actors: Vec<Vec<(Step, bool)>> = actions.iter().map(|action| action.steps()).collect();
    let mut outcomes = BTreeSet::new();
    interleave(&state, &actors, &mut vec![0; actors.len()], &mut outcomes);
    outcomes
}

fn interleave(state: &State, actors: &[Vec<(Step, bool)>], done: &mut Vec<usize>, outcomes: &mut BTreeSet<Outcome>) {
    let mut finished = true;
    for actor in 0..actors.len() {
        let Some((step, optional)) = actors[actor].get(done[actor]) else { continue };
        finished = false;
        done[actor] += 1;
        let mut next = state.clone();
        next.step(step);
        interleave(&next, actors, done, outcomes);
        // It skips what others hold, so only if there are others.
        if *optional && actors.len() > 1 {
            interleave(state, actors, done, outcomes);
        }
        done[actor] -= 1;
    }
    if finished {
        outcomes.insert((state.row.clone(), state.contradictions.len()));
    }
}

impl State {
    fn step(&mut self, step: &Step) {
        self.take(step);
        self.has_boot &= self.row.as_ref().is_some_and(|row| row.end.is_none());
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Batch(events) => self.batch(events),
            Step::Connect { .. } | Step::Disconnect { .. } => self.batch(std::slice::from_ref(step)),
            Step::Sweep => {
                if let (Some(row), false) = (&mut self.row, self.alive)
                    && row.end.is_none()
                {
                    let end = End { at: row.start.max(LAST_SEEN), reason: "agent lost".to_owned(), inferred: true };
                    row.end = Some(end);
                }
            }
            Step::Reopen => {
                self.alive = true;
                if let Some(row) = &mut self.row {
                    if row.end.as_ref().is_some_and(|end| !end.inferred) {
                        self.contradictions.insert("listed".to_owned());
                    } else if row.start >= self.floor {
                        self.has_boot |= row.end.take().is_some();
                    }
                }
            }
            Step::Restart => {
                if let Some(row) = self.row.as_mut().filter(|row| row.end.is_none() && self.has_boot) {
                    let at = row.start.max(LAST_SEEN);
                    row.end = Some(End { at, reason: "agent restarted".to_owned(), inferred: true });
                }
            }
            Step::RaiseFloor => self.floor = FLOOR,
            // While nobody can be heard, what is open under a boot counts as alive.
            Step::PurgeOpen => {
                drop(self.row.take_if(|row| row.end.is_none() && row.start < FLOOR && !self.has_boot));
            }
            Step::Trim | Step::Drop => drop(self.row.take_if(|row| row.end.is_some() && row.start < FLOOR)),
        }
    }

    fn batch(&mut self, events: &[Step]) {
        for event in events {
            if !self.tell(event) {
                self.contradictions.insert(format!("{event:?}"));
            }
        }
    }

    /// Tells an event to the row, and returns whether it agrees, or is not taken at all.
    fn tell(&mut self, event: &Step) -> bool {
        let (mut start, end) = match event {
            Step::Connect { at } => (Some(*at), None),
            Step::Disconnect { at, start, reason } => (*start, Some((*at, *reason))),
            _ => unreachable!("only these are events"),
        };
        let real = |at, reason: &str| End { at, reason: reason.to_owned(), inferred: false };
        let Some(row) = &mut self.row else {
            let begins = start.or(end.map(|(at, _)| at)).expect("an event has a time");
            if begins >= self.floor {
                let end = end.map(|(at, reason)| real(at, reason));
                self.row = Some(Row { start: begins, known: start.is_some(), end });
            }
            return true;
        };
        let mut agrees = true;
        match (start, row.known) {
            (Some(told), true) => agrees = told == row.start,
            (Some(told), false) if row.end.as_ref().is_some_and(|end| told > end.at) => agrees = false,
            (Some(told), false) if told < self.floor && (row.end.is_some() || end.is_none()) => return true,
            (Some(told), false) if told < self.floor => start = None,
            _ => {}
        }
        match (&row.end, end) {
            (Some(known), Some((at, reason))) if !known.inferred => agrees &= known.at == at && known.reason == reason,
            (_, Some((at, reason))) => {
                let begins = start.filter(|_| !row.known && agrees).unwrap_or(row.start);
                agrees &= at >= begins;
                row.end = Some(real(if at < begins { at.max(row.start) } else { at }, reason));
            }
            (_, None) => {}
        }
        if let (true, false, Some(told)) = (agrees, row.known, start) {
            (row.start, row.known) = (told, true);
        }
        agrees
    }
}
