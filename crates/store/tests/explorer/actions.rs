//! What actors do, each as the shipped code does it and as the oracle understands it.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use connlog_model::clock::Timestamp;
use connlog_model::event::{Action as Happening, Event, Outcome};
use connlog_store::infer::{Boot, SignOfLife};
use connlog_store::write::{Batch, Stamp};
use connlog_store::{Store, StoreError};
use connlog_testkit::fixtures;
use uuid::Uuid;

use crate::oracle::Step;
use crate::world::{Connection, Site};

/// An hour of the story. Hour 10 is midnight: what is earlier lies on another day, and below the floor that the purge
/// raises.
pub fn hour(number: i64) -> Timestamp {
    let midnight = (Utc::now().date_naive() - TimeDelta::days(10)).and_time(chrono::NaiveTime::MIN).and_utc();
    midnight + TimeDelta::hours(number - 10)
}

/// The hour of the last sign of life before the story begins.
pub const LAST_SEEN: i64 = 20;
/// The floor that the purge raises.
pub const FLOOR: i64 = 10;
/// The hour of a sign of life during the story.
const SIGN_OF_LIFE: i64 = 120;
/// When the sweep looks.
const SWEEP: i64 = 100;

/// An action of one actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A connect at 15.
    Connect,
    /// A connect at 5, a day earlier.
    EarlierConnect,
    /// A disconnect at 25 that does not say when it began.
    Disconnect,
    /// A disconnect at 24 with another reason, which began at 12.
    OtherDisconnect,
    /// Connect and disconnect in one batch.
    ConnectAndDisconnect,
    /// The sweep of lost agents.
    Sweep,
    /// A heartbeat that lists the connection.
    Reopen,
    /// Another boot of the agent, which lists nothing.
    Restart,
    /// A purge: floor, open rows, trim, and the day below the floor.
    Purge,
    /// The days of the story are closed.
    Close,
    /// The day of the connection is compacted, once it is closed.
    Compact,
}

impl Action {
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::EarlierConnect,
        Self::Disconnect,
        Self::OtherDisconnect,
        Self::ConnectAndDisconnect,
        Self::Sweep,
        Self::Reopen,
        Self::Restart,
        Self::Purge,
        Self::Close,
        Self::Compact,
    ];

    /// The events of a batch, as (hour of the connect, or hour and start and reason of the disconnect).
    fn events(self) -> Option<Vec<Step>> {
        let connect = |at| Step::Connect { at };
        let disconnect = |at, start, reason| Step::Disconnect { at, start, reason };
        Some(match self {
            Self::Connect => vec![connect(15)],
            Self::EarlierConnect => vec![connect(5)],
            Self::Disconnect => vec![disconnect(25, None, "b")],
            Self::OtherDisconnect => vec![disconnect(24, Some(12), "a")],
            Self::ConnectAndDisconnect => vec![connect(14), disconnect(26, None, "c")],
            Self::Sweep | Self::Reopen | Self::Restart | Self::Purge | Self::Close | Self::Compact => return None,
        })
    }

    /// The atomic steps of the action. Those that skip what others hold are optional.
    pub fn steps(self) -> Vec<(Step, bool)> {
        match self {
            Self::Sweep => vec![(Step::Sweep, true)],
            Self::Reopen => vec![(Step::Reopen, false)],
            Self::Restart => vec![(Step::Restart, false)],
            Self::Purge => {
                vec![(Step::RaiseFloor, false), (Step::PurgeOpen, true), (Step::Trim, true), (Step::Drop, true)]
            }
            // No event is changed by them.
            Self::Close | Self::Compact => vec![],
            batch => vec![(Step::Batch(batch.events().unwrap()), false)],
        }
    }

    /// Does it. `backwards` gives the connections of a batch in the opposite order.
    pub async fn perform(self, store: &Store, site: Site, shard: i16, backwards: bool) -> Result<(), StoreError> {
        match self {
            Self::Sweep => {
                store.sweep_silent(hour(SWEEP), hour(-1000), TimeDelta::hours(10)).await?;
            }
            Self::Reopen => {
                for agent in &site.agents {
                    let stamp = Stamp {
                        agent: Arc::clone(agent),
                        spool_id: site.spool_id,
                        stream_id: site.stream_id,
                        committed_seq: None,
                        seen_at: hour(SIGN_OF_LIFE),
                    };
                    let of_agent = site.connections.iter().filter(|connection| Arc::ptr_eq(&connection.agent, agent));
                    let listed: Vec<Uuid> = of_agent.map(|connection| connection.id).collect();
                    let sign = SignOfLife { agent, stamp, boot_id: site.boot_id, listed: &listed };
                    assert!(!store.sign_of_life(&sign).await?.displaced);
                }
            }
            Self::Restart => {
                for agent in &site.agents {
                    let (spool_id, boot_id) = (site.spool_id, Uuid::from_u128(4));
                    let (ended_at, live_since) = (hour(LAST_SEEN), hour(1000));
                    let boot = Boot { agent, spool_id, boot_id, listed: &[], ended_at, live_since };
                    store.close_other_boots(&boot).await?;
                }
            }
            Self::Purge => {
                let patience = Duration::from_mins(1);
                store.close_days(Utc::now()).await?;
                store.raise_floor(hour(FLOOR), TimeDelta::days(1), patience).await?;
                store.remove_open(hour(FLOOR), hour(1000), 100).await?;
                store.trim(hour(FLOOR - 1).date_naive(), hour(FLOOR), 100).await?;
                store.drop_day(hour(FLOOR - 1).date_naive(), patience).await?;
            }
            Self::Close => store.close_days(Utc::now()).await?,
            Self::Compact => {
                store.close_days(Utc::now()).await?;
                let run = Uuid::from_u128(5);
                assert!(store.take_purge_lease(run).await?);
                if let Some(compacted) = store.compact(run, hour(15).date_naive(), || true).await? {
                    store.swap(&compacted, Duration::from_mins(1)).await?;
                }
            }
            batch => {
                let mut events: Vec<Event> = Vec::new();
                for connection in &site.connections {
                    events.extend(batch.events().unwrap().into_iter().map(|step| event(connection, &step)));
                }
                if backwards {
                    events.reverse();
                }
                let batch = Batch { events, ..Batch::default() };
                store.apply_batch(&batch, shard, hour(60)).await?;
            }
        }
        Ok(())
    }
}

/// The event of a step of a batch.
pub fn event(connection: &Connection, step: &Step) -> Event {
    let happening = match step {
        Step::Disconnect { start, reason, .. } => Happening::Disconnect {
            connected_at: start.map(hour),
            outcome: Outcome { reason: (*reason).to_owned(), ..Outcome::default() },
        },
        _ => Happening::Connect,
    };
    let (Step::Connect { at } | Step::Disconnect { at, .. }) = step else { unreachable!("only these make events") };
    fixtures::agent_event(&connection.agent, connection.id.as_u128(), hour(*at), happening)
}
