//! Agents that are connected, all of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use connlog_proto::v1;
use futures::{StreamExt as _, TryStreamExt as _};
use rand::random_range;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::fleet::Agent;
use crate::service::Ingest;
use crate::sessions::{batches, messages, sessions};
use crate::stream::{Spool, Stream};

/// Agents that connect at the same time.
const CONNECTING: usize = 100;
/// Addresses of this machine that agents come from.
const SOURCES: u32 = 16;
/// How often an agent gives a sign of life: the default of the server.
const HEARTBEAT_SECONDS: f64 = 30.0;
/// The first pause before another attempt is at most this long, the bound doubles with each further one: as connlog-agent does.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How long an agent goes on trying.
const PATIENCE: Duration = Duration::from_mins(3);

/// Connected agents.
pub(super) struct Fleet {
    server: SocketAddr,
    members: Vec<(Agent, Stream)>,
}

impl Fleet {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self { server, members: Vec::new() }
    }

    /// Connects further agents.
    pub(super) async fn grow(&mut self, agents: &[Agent]) -> Result<()> {
        let server = self.server;
        let first = u32::try_from(self.members.len())?;
        let more = futures::stream::iter(agents.iter().cloned().zip(first..)).map(|(agent, number)| async move {
            let stream = Stream::open(channel(server, number).await?, &agent.token, Spool::new()).await?;
            anyhow::Ok((agent, stream))
        });
        self.members.extend(more.buffer_unordered(CONNECTING).try_collect::<Vec<_>>().await?);
        Ok(())
    }

    /// Lets everybody give signs of life, spread over time, and nothing else.
    pub(super) async fn idle(&self, duration: Duration) -> Result<()> {
        let pause = Duration::from_secs_f64(HEARTBEAT_SECONDS / f64::from(u32::try_from(self.members.len())?));
        let mut tick = tokio::time::interval(pause);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let until = Instant::now() + duration;
        for (_, stream) in self.members.iter().cycle() {
            if Instant::now() >= until {
                break;
            }
            tick.tick().await;
            stream.beat().await?;
        }
        Ok(())
    }

    /// All agents send as fast as they can until everything is acknowledged. Returns how many sessions it were.
    pub(super) async fn burst(&mut self, events: u32) -> Result<u32> {
        let each = self.sessions_each(events)?;
        let count = each * u32::try_from(self.members.len())?;
        let mut running = JoinSet::new();
        for (agent, mut stream) in self.members.drain(..) {
            let queue = queue(each, stream.spool());
            running.spawn(async move { stream.send_all(queue).await.map(|()| (agent, stream)) });
        }
        while let Some(done) = running.join_next().await {
            self.members.push(done??);
        }
        Ok(count)
    }

    /// All agents send; the server is killed when a tenth of them is done, and started again; everybody comes back and sends again
    /// what is not acknowledged. Returns how long that took once the server listened, how many sessions it were, and how often
    /// an agent that reached the server met an error.
    pub(super) async fn reconnect(&mut self, events: u32, ingest: &mut Ingest) -> Result<(Duration, u32, u32)> {
        let each = self.sessions_each(events)?;
        let members = u32::try_from(self.members.len())?;
        let (done, errors, is_back) =
            (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let mut running = JoinSet::new();
        for (number, (agent, stream)) in (0..).zip(self.members.drain(..)) {
            let queue = queue(each, stream.spool());
            let (done, errors, is_back) = (done.clone(), errors.clone(), is_back.clone());
            let sender = Sender { server: self.server, number, agent, done, errors, is_back };
            running.spawn(async move {
                let stream = sender.send(stream, &queue).await?;
                anyhow::Ok((sender.agent, stream))
            });
        }
        while done.load(Ordering::Relaxed) < members / 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ingest.restart_after_kill()?;
        is_back.store(true, Ordering::Relaxed);
        let began = Instant::now();
        while let Some(member) = running.join_next().await {
            self.members.push(member??);
        }
        Ok((began.elapsed(), each * members, errors.load(Ordering::Relaxed)))
    }

    /// Sessions of each agent: two events each.
    fn sessions_each(&self, events: u32) -> Result<u32> {
        Ok((events / 2 / u32::try_from(self.members.len())?).max(1))
    }
}

/// The connects of some sessions in one message, and their disconnects in another.
fn queue(sessions_each: u32, spool: Spool) -> Vec<v1::EventBatch> {
    messages(&batches(&sessions(sessions_each), sessions_each as usize), spool.acked + 1)
}

/// An agent that does not give up.
struct Sender {
    server: SocketAddr,
    number: u32,
    agent: Agent,
    /// How many agents were done before the server was killed.
    done: Arc<AtomicU32>,
    errors: Arc<AtomicU32>,
    is_back: Arc<AtomicBool>,
}

impl Sender {
    /// Sends until everything is acknowledged, over as many streams as it takes.
    async fn send(&self, mut stream: Stream, queue: &[v1::EventBatch]) -> Result<Stream> {
        let began = Instant::now();
        let last = queue.last().and_then(|batch| batch.events.last()).map_or(0, |event| event.seq);
        let mut spool = Spool { last, ..stream.spool() };
        if stream.send_all(queue.to_vec()).await.is_ok() {
            // Its stream dies too, and it comes back with nothing to send.
            self.done.fetch_add(1, Ordering::Relaxed);
            while !self.is_back.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        spool.acked = stream.spool().acked;
        drop(stream);
        for attempt in 0.. {
            let longest = FIRST_PAUSE * 2_u32.pow(attempt.min(6));
            tokio::time::sleep(random_range(Duration::ZERO..=longest)).await;
            let was_back = self.is_back.load(Ordering::Relaxed);
            match self.resend(&mut spool, queue).await {
                Ok(stream) => return Ok(stream),
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
                Err(error) if was_back => {
                    if self.errors.fetch_add(1, Ordering::Relaxed) == 0 {
                        println!("an agent met an error: {error:#}");
                    }
                }
                Err(_) => {}
            }
        }
        unreachable!("patience ends before the attempts do")
    }

    async fn resend(&self, spool: &mut Spool, queue: &[v1::EventBatch]) -> Result<Stream> {
        let mut stream = Stream::open(channel(self.server, self.number).await?, &self.agent.token, *spool).await?;
        let acked = spool.acked;
        let rest = queue.iter().filter_map(|batch| {
            let events: Vec<_> = batch.events.iter().filter(|event| event.seq > acked).cloned().collect();
            (!events.is_empty()).then(|| v1::EventBatch { events, ..v1::EventBatch::default() })
        });
        let sent = stream.send_all(rest.collect()).await;
        spool.acked = stream.spool().acked;
        sent.map(|()| stream)
    }
}

/// A TCP connection, from one of several addresses of this machine: each has only so many ports.
async fn channel(server: SocketAddr, number: u32) -> Result<Channel> {
    let [.., last] = (number % SOURCES + 2).to_be_bytes();
    let endpoint = Endpoint::from_shared(format!("http://{server}"))?
        .local_address(Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))))
        .connect_timeout(Duration::from_secs(10));
    endpoint.connect().await.context("cannot connect")
}
