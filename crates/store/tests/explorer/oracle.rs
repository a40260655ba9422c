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
    RaiseFloor,
    PurgeOpen,
    Trim,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    Open { start: i64 },
    Ended { start: i64, end: i64, reason: String, inferred: bool },
}

/// What is there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    Nothing,
    Open,
    Completed,
    Inferred,
}

impl Initial {
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Open, Self::Completed, Self::Inferred];

    /// The events that lead there; an inferred end comes from a sweep after them.
    pub fn events(self) -> Vec<Step> {
        let connect = Step::Connect { at: 15 };
        match self {
            Self::Nothing => vec![],
            Self::Open | Self::Inferred => vec![connect],
            Self::Completed => vec![connect, Step::Disconnect { at: 24, start: None, reason: "z" }],
        }
    }
}

/// The state that steps change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    row: Option<Row>,
    floor: i64,
    /// The agent gave a sign of life during the story.
    alive: bool,
}

/// The rows that may be there at the end.
pub fn outcomes(initial: Initial, actions: &[Action]) -> BTreeSet<Option<Row>> {
    let mut state = State { row: None, floor: i64::MIN, alive: false };
    state.step(&Step::Batch(initial.events()));
    if initial == Initial::Inferred {
        state.step(&Step::Sweep);
    }
    let actors: Vec<Vec<(Step, bool)>> = actions.iter().map(|action| action.steps()).collect();
    let mut outcomes = BTreeSet::new();
    interleave(&state, &actors, &mut vec![0; actors.len()], &mut outcomes);
    outcomes
}

fn interleave(
    state: &State,
    actors: &[Vec<(Step, bool)>],
    done: &mut Vec<usize>,
    outcomes: &mut BTreeSet<Option<Row>>,
) {
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
        outcomes.insert(state.row.clone());
    }
}

impl State {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Batch(events) => self.batch(events),
            Step::Connect { .. } | Step::Disconnect { .. } => self.batch(std::slice::from_ref(step)),
            Step::Sweep => {
                if let (Some(Row::Open { start }), false) = (&self.row, self.alive) {
                    let start = *start;
                    self.row = (start >= self.floor).then(|| Row::Ended {
                        start,
                        end: start.max(LAST_SEEN),
                        reason: "agent lost".to_owned(),
                        inferred: true,
                    });
                }
            }
            Step::Reopen => {
                self.alive = true;
                if let Some(Row::Ended { start, inferred: true, .. }) = self.row
                    && start >= self.floor
                {
                    self.row = Some(Row::Open { start });
                }
            }
            Step::RaiseFloor => self.floor = FLOOR,
            Step::PurgeOpen => {
                if matches!(self.row, Some(Row::Open { start }) if start < FLOOR) {
                    self.row = None;
                }
            }
            Step::Trim => {
                if matches!(self.row, Some(Row::Ended { start, .. }) if start < FLOOR) {
                    self.row = None;
                }
            }
        }
    }

    fn batch(&mut self, events: &[Step]) {
        let connects = events.iter().filter_map(|event| match event {
            Step::Connect { at } if *at >= self.floor => Some(*at),
            _ => None,
        });
        let disconnects: Vec<(i64, &str, i64)> = events
            .iter()
            .filter_map(|event| match event {
                Step::Disconnect { at, start, reason } => {
                    Some((*at, *reason, start.map_or(*at, |start| start.min(*at))))
                }
                _ => None,
            })
            .collect();
        // A start below the floor says nothing any more.
        let starts = disconnects.iter().map(|(_, _, start)| *start).filter(|start| *start >= self.floor);
        let start = connects.chain(starts).min();
        let end = disconnects.iter().map(|(at, reason, _)| (*at, (*reason).to_owned())).min();
        let (stored_start, stored_end) = match &self.row {
            None if start.is_none() => return,
            None => (None, None),
            Some(Row::Open { start }) => (Some(*start), None),
            Some(Row::Ended { start, end, reason, inferred }) => {
                (Some(*start), Some((*end, reason.clone(), *inferred)))
            }
        };
        let was_ended = stored_end.is_some();
        let start = stored_start.into_iter().chain(start).min().expect("one of them is there");
        let end = match (stored_end, end) {
            (Some((at, reason, false)), Some(end)) => Some((end.min((at, reason)), false)),
            (_, Some(end)) => Some((end, false)),
            (Some((at, reason, inferred)), None) => Some(((at, reason), inferred)),
            (None, None) => None,
        };
        self.row = match end {
            None => Some(Row::Open { start }),
            Some(_) if !was_ended && start < self.floor => None,
            Some(((end, reason), inferred)) => Some(Row::Ended { start, end, reason, inferred }),
        };
    }
}
