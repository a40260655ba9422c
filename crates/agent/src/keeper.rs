//! The thread that owns the spool: appends that arrive together are made durable together.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::spool::{Lost, Record, Spool, SpoolError};

/// Most appends that are made durable together.
const MAX_GROUP: usize = 256;

enum Command {
    Append { payload: Vec<u8>, answer: oneshot::Sender<Result<u64, SpoolError>> },
    Read { after: u64, limit: usize, max_bytes: usize, answer: oneshot::Sender<Result<Vec<Record>, SpoolError>> },
    Acknowledge { seq: u64 },
    State { answer: oneshot::Sender<State> },
}

/// What a spool holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Events that are not acknowledged.
    pub pending: u64,
    /// Everything up to this number is acknowledged.
    pub acked_seq: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Events that gave way and that the server does not know of yet.
    pub lost: Option<Lost>,
}

/// A handle to the thread. The thread ends, and the spool is closed, when the last handle is gone.
#[derive(Debug, Clone)]
pub struct Keeper {
    commands: Sender<Command>,
    last_seq: watch::Receiver<u64>,
    spool_id: Uuid,
}

/// The thread is gone: it panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the spool's thread has ended")]
pub struct Gone;

impl Keeper {
    /// Starts the thread.
    pub fn start(spool: Spool) -> Self {
        let (commands, receiver) = mpsc::channel();
        let (written, last_seq) = watch::channel(spool.last_seq());
        let spool_id = spool.id();
        thread::Builder::new()
            .name("connlog-spool".to_owned())
            .spawn(move || serve(spool, &receiver, &written))
            .expect("a thread can be started");
        Self { commands, last_seq, spool_id }
    }

    /// Names the spool.
    pub fn spool_id(&self) -> Uuid {
        self.spool_id
    }

    /// The newest number, and its changes.
    pub fn last_seq(&self) -> watch::Receiver<u64> {
        self.last_seq.clone()
    }

    /// Appends an event; it is durable when this returns.
    pub async fn append(&self, payload: Vec<u8>) -> Result<Result<u64, SpoolError>, Gone> {
        self.ask(|answer| Command::Append { payload, answer }).await
    }

    /// Up to `limit` records after `after`, and no more than `max_bytes` of payload, but at least one.
    pub async fn read(
        &self,
        after: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Result<Vec<Record>, SpoolError>, Gone> {
        self.ask(|answer| Command::Read { after, limit, max_bytes, answer }).await
    }

    /// Notes that everything up to `seq` is acknowledged.
    pub fn acknowledge(&self, seq: u64) -> Result<(), Gone> {
        self.commands.send(Command::Acknowledge { seq }).map_err(|_| Gone)
    }

    /// What the spool holds.
    pub async fn state(&self) -> Result<State, Gone> {
        self.ask(|answer| Command::State { answer }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Gone> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }
}

fn serve(mut spool: Spool, commands: &Receiver<Command>, written: &watch::Sender<u64>) {
    let mut waiting = None;
    while let Some(command) = waiting.take().or_else(|| commands.recv().ok()) {
        match command {
            Command::Append { payload, answer } => {
                let mut bytes = payload.len();
                let mut group = vec![(payload, answer)];
                // No more than a segment: the bound of the spool is kept by giving up whole ones.
                while group.len() < MAX_GROUP && bytes < spool.segment_bytes() {
                    match commands.try_recv() {
                        Ok(Command::Append { payload, answer }) => {
                            bytes += payload.len();
                            group.push((payload, answer));
                        }
                        Ok(other) => {
                            waiting = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                append(&mut spool, group);
                written.send_replace(spool.last_seq());
            }
            Command::Read { after, limit, max_bytes, answer } => {
                let _nobody_waits = answer.send(spool.read_after(after, limit, max_bytes));
            }
            Command::Acknowledge { seq } => {
                // What is acknowledged and still there is only sent once more.
                if let Err(error) = spool.acknowledge(seq) {
                    tracing::warn!(%error, "an acknowledgement could not be noted");
                }
            }
            Command::State { answer } => {
                let _nobody_waits = answer.send(State {
                    pending: spool.last_seq() - spool.acked_seq(),
                    acked_seq: spool.acked_seq(),
                    bytes: spool.bytes(),
                    lost: spool.lost().copied(),
                });
            }
        }
    }
}

type Append = (Vec<u8>, oneshot::Sender<Result<u64, SpoolError>>);

/// Appends a group with one write. If that fails, each event has its own turn and its own answer.
fn append(spool: &mut Spool, group: Vec<Append>) {
    let payloads: Vec<&[u8]> = group.iter().map(|(payload, _)| payload.as_slice()).collect();
    let first = spool.last_seq() + 1;
    match spool.append(&payloads) {
        Ok(_) => {
            for ((_, answer), seq) in group.into_iter().zip(first..) {
                let _nobody_waits = answer.send(Ok(seq));
            }
        }
        Err(_) => {
            for (payload, answer) in group {
                let _nobody_waits = answer.send(spool.append(&[&payload]));
            }
        }
    }
}
