//! The service as a whole: its parts, started in order and stopped in order.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use connlog_proto::coder::agent_server::AgentServer;
use connlog_proto::v1::connection_log_server::ConnectionLogServer;
use connlog_proto::v1::directory_server::DirectoryServer;
use connlog_runtime::admin::{self, Readiness};
use connlog_runtime::listen::{ConnectionLimits, Connections};
use connlog_runtime::shutdown::Shutdown;
use connlog_runtime::telemetry;
use connlog_runtime::tls::ServerTls;
use connlog_store::{Store, StoreConfig, schema};
use futures::stream::unfold;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::codec::CompressionEncoding::Gzip;
use tonic::server::NamedService as _;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::auth::Authenticator;
use crate::commit::{Committer, HeldStreams, Writers};
use crate::conclusions::Conclusions;
use crate::config::{Config, std_duration};
use crate::door::{Door, MAX_OPEN_MESSAGE_BYTES};
use crate::grpc::coder::CoderAgent;
use crate::grpc::directory::{CONCURRENT_SYNCS, DirectorySync};
use crate::grpc::measure::Measure;
use crate::grpc::presence::Presences;
use crate::grpc::report::Reports;
use crate::grpc::stream::{ConnectionLogService, Registry, StreamLimits, Streams};
use crate::grpc::unary::UnaryCalls;
use crate::pace::Pace;
use crate::peer::Peer;
use crate::revoked::Calls;
use crate::service_log::ServiceLog;
use crate::undecoded::{Undecoded, UndecodedLimits};
use crate::watch::Watch;

/// Connections beyond those of the writers: authentication, signs of life, directory syncs, the watch.
const OTHER_CONNECTIONS: usize = 8;
/// How often an idle connection is asked whether it is still there, so that half-open ones end.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long the answer may take.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Flow control: the window of a connection is far larger than that of a stream, so that one stream that is not read
/// does not starve the others.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// Calls at once of a connection.
const MAX_STREAMS: u32 = 256;
/// Calls that a peer took back before they were begun. Beyond it the connection ends: CVE-2023-44487, "rapid reset".
const MAX_RESET_STREAMS: usize = 20;
/// Largest head of a call.
const MAX_HEAD_BYTES: u32 = 16 << 10;
/// How long a writer's transaction may wait for it. Agents that come by another replica wait for the locks of one that is gone.
const WRITER_IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A queue that is full at so many looks one after another stays full.
const LOOKS_FULL: u32 = 3;
/// How often health and queue are looked at.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// How long the database may take to answer before ingest counts as not serving.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

fn store_config(config: &Config, name: &str, connections: usize) -> StoreConfig {
    StoreConfig {
        password_file: config.database_password_file.clone(),
        pooled: config.database_pooled,
        ..StoreConfig::new(&config.database_url, name, connections)
    }
}

/// Writers have connections of their own: whatever else goes on, a commit does not wait for one.
fn start_writers(
    config: &Config,
    service_log: Arc<ServiceLog>,
    shutdown: &Shutdown,
) -> Result<Committer, connlog_store::StoreError> {
    let of_writers = store_config(config, "connlog-ingest writer", usize::try_from(config.writers).unwrap_or(1));
    let store = Store::new(&StoreConfig { by_key: true, idle_timeout: WRITER_IDLE_TIMEOUT, ..of_writers })?;
    let (events, letters) = (config.max_transaction_events, config.letter_kib_per_hour);
    let writers = Writers::new(store, config.clock.clone(), service_log, events, letters);
    Ok(writers.start(config.writers, config.max_queued_events, shutdown))
}

/// Runs the service until `shutdown`. Returns whether it ended well.
pub async fn run(
    config: Config,
    listener: TcpListener,
    admin_listener: TcpListener,
    shutdown: Shutdown,
) -> anyhow::Result<bool> {
    check(&config)?;
    let store = Store::new(&store_config(&config, "connlog-ingest", OTHER_CONNECTIONS))?;
    schema::check_for_service(&store).await.context("cannot start on this database")?;
    let tls = ServerTls::load(&config.tls, listener.local_addr()?, &["h2"], &shutdown)?;
    let metrics = telemetry::metrics();
    begin_counting();
    let service_log = Arc::new(ServiceLog::open(config.log_json.as_deref(), config.log_human.as_deref()).await?);
    let committer = start_writers(&config, Arc::clone(&service_log), &shutdown)?;
    let conclusions = Conclusions { service_log, clock: config.clock.clone(), shutdown: shutdown.clone() };
    shutdown.spawn("watch", watch(&config, store.clone(), conclusions.clone()).run());
    let full = Arc::new(AtomicBool::new(false));
    let readiness = readiness(store.clone(), committer.database_down(), committer.held().clone(), Arc::clone(&full));
    tokio::spawn(admin::serve(admin_listener, readiness, metrics, shutdown.clone()));

    let (reporter, health) = tonic_health::server::health_reporter();
    report_health(&reporter, ServingStatus::NotServing).await;
    let undecoded = Undecoded::new(undecoded_limits(&config));
    let health_watch =
        watch_health(reporter, store.clone(), committer.clone(), undecoded.clone(), full, shutdown.clone());
    shutdown.spawn("health", health_watch);

    let authenticator = Authenticator::new(store.clone(), config.clock.clone(), std_duration(config.token_cache));
    let ongoing = Calls::default();
    let over = ongoing.clone().watch(store.clone(), authenticator.clone(), config.clock.clone(), shutdown.clone());
    shutdown.spawn("revocations", over);
    let (agents, reporters) = (pace(config.agent_rate, &config), pace(config.reporter_rate, &config));
    let calls = UnaryCalls {
        committer: committer.clone(),
        clock: config.clock.clone(),
        max_event_age: config.max_event_age,
        commit_timeout: std_duration(config.commit_timeout),
        pace: agents.clone(),
    };
    let presences =
        Presences { store: store.clone(), lost_after: config.agent_lost_after, conclusions: conclusions.clone() };
    let max_events = config.max_batch_events;
    let reports =
        Reports { authenticator: authenticator.clone(), calls: calls.clone(), max_events, pace: reporters, presences };
    let streams = Streams {
        store: store.clone(),
        committer,
        clock: config.clock.clone(),
        conclusions,
        registry: Registry::new(config.max_streams_per_agent),
        pace: agents,
        limits: stream_limits(&config),
        shutdown: shutdown.clone(),
    };
    let directory = DirectorySync {
        running: Semaphore::new(CONCURRENT_SYNCS),
        shutdown: shutdown.clone(),
        store,
        clock: config.clock.clone(),
    };
    let limit = config.max_message_bytes;
    let service = ConnectionLogService { streams, calls: calls.clone(), reports };
    let router = Server::builder()
        .layer(Measure)
        .layer(Door::new(authenticator, undecoded, ongoing, config.require_bound_certificates))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_RESET_STREAMS))
        .http2_max_header_list_size(MAX_HEAD_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(health.max_decoding_message_size(MAX_OPEN_MESSAGE_BYTES))
        .add_service(reflection().build_v1()?.max_decoding_message_size(MAX_OPEN_MESSAGE_BYTES))
        .add_service(reflection().build_v1alpha()?.max_decoding_message_size(MAX_OPEN_MESSAGE_BYTES))
        // The limit is that of what was decompressed, too.
        .add_service(ConnectionLogServer::new(service).max_decoding_message_size(limit).accept_compressed(Gzip))
        .add_service(DirectoryServer::new(directory).max_decoding_message_size(limit).accept_compressed(Gzip))
        .add_service(AgentServer::new(CoderAgent { calls }).max_decoding_message_size(limit).accept_compressed(Gzip));

    let drain_time = std_duration(config.grace_period) / 2;
    let address = listener.local_addr()?;
    let connections = Connections::accept(listener, tls, connection_limits(&config));
    tracing::info!(%address, "connlog-ingest is listening");
    shutdown.spawn("gRPC listener", {
        let shutdown = shutdown.clone();
        async move {
            let incoming = unfold(connections, async |mut connections| {
                let (socket, address) = connections.next().await?;
                Some((Ok::<_, std::io::Error>(Peer(socket, address)), connections))
            });
            let ended = tokio::select! {
                served = router.serve_with_incoming_shutdown(incoming, shutdown.begun()) => served,
                // A peer that never says anything, or never reads, does not hold up the end.
                () = drained(&shutdown, drain_time) => Ok(()),
            };
            if let Err(error) = ended {
                tracing::error!(%error, "the gRPC listener failed");
            }
        }
    });
    shutdown.begun().await;
    Ok(shutdown.finish(std_duration(config.grace_period)).await)
}

/// Limits that make no sense together.
fn check(config: &Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.agent_lost_after >= config.heartbeat_interval * 3,
        "--agent-lost-after must be at least three times --heartbeat-interval: every agent would be taken for lost"
    );
    anyhow::ensure!(
        config.max_message_bytes < config.max_undecoded_bytes_per_caller
            && config.max_undecoded_bytes_per_caller <= config.max_undecoded_bytes,
        "--max-message-bytes must be less than --max-undecoded-bytes-per-caller, and that at most --max-undecoded-bytes: \
         a message would never become whole"
    );
    Ok(())
}

fn undecoded_limits(config: &Config) -> UndecodedLimits {
    UndecodedLimits {
        all: config.max_undecoded_bytes,
        of_caller: config.max_undecoded_bytes_per_caller,
        deadline: std_duration(config.message_timeout),
    }
}

fn connection_limits(config: &Config) -> ConnectionLimits {
    ConnectionLimits {
        all: config.max_connections,
        strangers: config.max_unrecognized,
        stall: std_duration(config.stall_timeout),
    }
}

fn watch(config: &Config, store: Store, conclusions: Conclusions) -> Watch {
    Watch {
        store,
        clock: config.clock.clone(),
        lost_after: config.agent_lost_after,
        unary_lost_after: config.unary_lost_after,
        feed_retention: config.feed_retention,
        feed_max_bytes: config.feed_max_bytes,
        shutdown: conclusions.shutdown.clone(),
        conclusions,
    }
}

/// Counters are there from the start: what begins with its first event has no increase to alert on.
fn begin_counting() {
    for outcome in ["committed", "rejected", "lost"] {
        metrics::counter!("connlog_ingest_events_total", "outcome" => outcome).increment(0);
    }
    for cause in ["lost", "restarted", "deleted", "disconnect_lost", "no_end"] {
        metrics::counter!("connlog_ingest_inferred_total", "cause" => cause).increment(0);
    }
    metrics::gauge!("connlog_ingest_held_streams").set(0);
    metrics::counter!("connlog_ingest_contradictions_total").increment(0);
    metrics::counter!("connlog_ingest_look_backs_total").increment(0);
    metrics::counter!("connlog_ingest_reopened_total").increment(0);
    metrics::counter!("connlog_database_retries_total").increment(0);
}

fn stream_limits(config: &Config) -> StreamLimits {
    StreamLimits {
        max_batch_events: config.max_batch_events,
        max_in_flight_events: config.max_in_flight_events,
        heartbeat_interval: config.heartbeat_interval,
        lost_after: config.agent_lost_after,
        max_age: std_duration(config.max_stream_age),
        max_event_age: config.max_event_age,
    }
}

fn pace(events_per_second: NonZeroU32, config: &Config) -> Pace {
    let pace = Pace::new(events_per_second, config.max_batch_events);
    tokio::spawn(pace.forget());
    pace
}

/// Keeps gRPC health and the gauge of the queue current, and notes in `full` whether the queue stays full: then new
/// streams and calls do better elsewhere.
async fn watch_health(
    reporter: HealthReporter,
    store: Store,
    committer: Committer,
    undecoded: Undecoded,
    full: Arc<AtomicBool>,
    shutdown: Shutdown,
) {
    let mut looks_full = 0;
    while !shutdown.has_begun() {
        looks_full = if committer.is_full() { looks_full + 1 } else { 0 };
        full.store(looks_full >= LOOKS_FULL, Ordering::Relaxed);
        let queued = u32::try_from(committer.queued_events()).unwrap_or(u32::MAX);
        metrics::gauge!("connlog_ingest_queued_events").set(queued);
        metrics::gauge!("connlog_ingest_undecoded_bytes").set(u32::try_from(undecoded.bytes()).unwrap_or(u32::MAX));
        let answers = tokio::time::timeout(HEALTH_TIMEOUT, store.ping()).await.is_ok_and(|ping| ping.is_ok());
        let serves = answers && looks_full < LOOKS_FULL;
        report_health(&reporter, if serves { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        tokio::select! {
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
            () = shutdown.begun() => {}
        }
    }
    report_health(&reporter, ServingStatus::NotServing).await;
}

/// Of the service, and of the server as a whole, which has the empty name.
async fn report_health(reporter: &HealthReporter, status: ServingStatus) {
    for service in ["", ConnectionLogServer::<ConnectionLogService>::NAME] {
        reporter.set_service_status(service, status).await;
    }
}

async fn drained(shutdown: &Shutdown, drain_time: Duration) {
    shutdown.begun().await;
    tokio::time::sleep(drain_time).await;
}

/// It has no way to the writers: they end when the last one is gone.
fn readiness(
    store: Store,
    database_down: watch::Receiver<Option<String>>,
    held: HeldStreams,
    full: Arc<AtomicBool>,
) -> Readiness {
    Arc::new(move || {
        let (store, is_full) = (store.clone(), full.load(Ordering::Relaxed));
        let (down, held) = (database_down.borrow().clone(), held.detail());
        Box::pin(async move {
            schema::check_running(&store).await.map_err(|error| error.one_line())?;
            if let Some(reason) = down {
                return Err(format!("the database takes no events: {reason}"));
            }
            if is_full { Err("too many events wait for a commit".to_owned()) } else { Ok(held) }
        })
    })
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(connlog_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}
