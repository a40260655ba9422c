//! Traces over OTLP: from an agent's batch to the statements of its commit, and from a reader's request to its statements, by the
//! programs that ship.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::Utc;
use connlog_model::role::Role;
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use connlog_store::roles::{INGEST, QUERY};
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures;
use connlog_testkit::process::{Process, Signal, free_address};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_mins(1);

/// A collector that keeps what it is sent, each span with the service that it is of.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap();
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let name = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
            let Some(Value::StringValue(service)) = name.value.clone().and_then(|name| name.value) else { panic!() };
            let found = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            spans.extend(found.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let (collector, listener) = (Self::default(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    /// The first span of `service` that `is` accepts, as soon as there is one.
    async fn span(&self, service: &str, is: impl Fn(&Span) -> bool) -> Span {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.0.lock().unwrap().iter().find(|(of, span)| of == service && is(span)).cloned();
            if let Some((_, span)) = found {
                return span;
            }
            let names: Vec<_> =
                self.0.lock().unwrap().iter().map(|(of, span)| format!("{of}: {}", span.name)).collect();
            assert!(Instant::now() < deadline, "there is such a span of {service} among {names:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A program of the workspace, beside the one of this package.
fn program(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_connlog-agent")).with_file_name(name);
    assert!(program.exists(), "{name} is not built: cargo build --workspace");
    program
}

/// Starts a program that sends its traces to `collector`.
fn start(command: &mut Command, collector: SocketAddr) -> Process {
    let name = command.get_program().to_string_lossy().into_owned();
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}")).env("OTEL_BSP_SCHEDULE_DELAY", "100");
    Process::spawn(&name, command.env("CONNLOG_LOG", "warn"), "KILL").unwrap()
}

fn service(name: &str, database_url: &str, collector: SocketAddr) -> (SocketAddr, Process) {
    let address = free_address().unwrap();
    let mut command = Command::new(program(name));
    command.args(["--database-url", database_url, "--listen", &address.to_string()]);
    let mut process = start(command.args(["--admin-listen", &free_address().unwrap().to_string()]), collector);
    process.wait_until_listening(address, PATIENCE).unwrap();
    (address, process)
}

/// What a caller says of its own trace, and its two ids.
fn traceparent() -> (String, Vec<u8>, Vec<u8>) {
    let (trace, span) = (Uuid::new_v4(), Uuid::new_v4().as_u64_pair().0);
    (format!("00-{}-{span:016x}-01", trace.simple()), trace.as_bytes().to_vec(), span.to_be_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_traced_from_its_agent_to_the_statements_of_its_commit() {
    let (collector, endpoint) = Collector::start().await;
    let database = TestDatabase::create().await.unwrap();
    let site = fixtures::site(1, 1);
    fixtures::import(&database.store().unwrap(), &site.directory, Utc::now()).await.unwrap();
    let (ingest, _ingest) = service("connlog-ingest", &database.url_as(INGEST), endpoint);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), &site.token).unwrap();
    let mut command = Command::new(program("connlog-agent"));
    command.arg("run").arg("--spool").arg(folder.path()).arg("--token-file").arg(folder.path().join("token"));
    let mut agent = start(command.args(["--server", &format!("http://{ingest}")]), endpoint);
    let report = ["report", "connect", "--app", "ssh", "--spool"];
    let reported = Command::new(program("connlog-agent")).args(report).arg(folder.path()).status().unwrap();
    assert!(reported.success());

    let commit = collector.span("connlog-ingest", |span| span.name == "commit").await;
    let batch = collector.span("connlog-ingest", |span| span.span_id == commit.parent_span_id).await;
    assert_eq!(batch.name, "connlog.v1.ConnectionLog/StreamEvents batch");
    let statement = collector.span("connlog-ingest", |span| span.parent_span_id == commit.span_id).await;
    // The agent's last spans are sent as it ends.
    agent.signal(Signal::SIGTERM).unwrap();
    assert!(agent.wait(PATIENCE).unwrap().success());
    let sent = collector.span("connlog-agent", |span| span.span_id == batch.parent_span_id).await;
    assert_eq!((sent.name.as_str(), sent.parent_span_id.is_empty()), ("send batch", true));
    for span in [&commit, &batch, &statement] {
        assert_eq!(span.trace_id, sent.trace_id, "{} is part of the agent's trace", span.name);
    }
    assert!(
        sent.start_time_unix_nano <= batch.start_time_unix_nano && commit.end_time_unix_nano <= sent.end_time_unix_nano
    );
    assert!(statement.attributes.iter().any(|attribute| attribute.key == "db.system.name"), "{statement:?}");

    // A call that brings its own trace goes on with it.
    let (header, trace_id, span_id) = traceparent();
    let mut client = ConnectionLogClient::connect(format!("http://{ingest}")).await.unwrap();
    let connection = v1::Connection {
        id: Uuid::new_v4().as_bytes().to_vec(),
        action: v1::Action::Connect.into(),
        app_name: "ssh".to_owned(),
        ..v1::Connection::default()
    };
    let mut request = Request::new(v1::ReportConnectionRequest { connection: Some(connection) });
    request.metadata_mut().insert("authorization", format!("Bearer {}", site.token).parse().unwrap());
    request.metadata_mut().insert("traceparent", header.parse().unwrap());
    client.report_connection(request).await.unwrap();
    let call = collector.span("connlog-ingest", |span| span.parent_span_id == span_id).await;
    assert_eq!((call.name.as_str(), &call.trace_id), ("connlog.v1.ConnectionLog/ReportConnection", &trace_id));
    let commit = collector.span("connlog-ingest", |span| span.name == "commit" && span.trace_id == trace_id).await;
    assert_eq!(commit.parent_span_id, call.span_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_a_reader_is_traced_to_its_statements() {
    let (collector, endpoint) = Collector::start().await;
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let token = fixtures::api_token(&store, Role::Auditor, None, None, Utc::now()).await.unwrap();
    let (query, _query) = service("connlog-query", &database.url_as(QUERY), endpoint);
    let (header, trace_id, span_id) = traceparent();
    let mut socket = TcpStream::connect(query).await.unwrap();
    let request = format!(
        "GET /api/v2/connectionlog HTTP/1.1\r\nhost: log\r\nconnection: close\r\n\
         authorization: Bearer {token}\r\ntraceparent: {header}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let served = collector.span("connlog-query", |span| span.parent_span_id == span_id).await;
    assert_eq!((served.name.as_str(), &served.trace_id), ("GET /api/v2/connectionlog", &trace_id));
    collector.span("connlog-query", |span| span.trace_id == trace_id && span.parent_span_id == served.span_id).await;
}

#[test]
fn a_protocol_that_is_not_spoken_is_a_usage_error() {
    let output = Command::new(program("connlog-ingest"))
        .args(["--database-url", "postgresql://localhost/none"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), message.lines().count()), (Some(64), 1), "{message}");
    assert!(message.contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_nothing_but_traces() {
    let database = TestDatabase::create().await.unwrap();
    let site = fixtures::site(1, 1);
    fixtures::import(&database.store().unwrap(), &site.directory, Utc::now()).await.unwrap();
    let (ingest, mut process) = service("connlog-ingest", &database.url_as(INGEST), free_address().unwrap());
    let mut client = ConnectionLogClient::connect(format!("http://{ingest}")).await.unwrap();
    let request = v1::ReportConnectionRequest { connection: None };
    let mut request = Request::new(request);
    request.metadata_mut().insert("authorization", format!("Bearer {}", site.token).parse().unwrap());
    let status = client.report_connection(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.wait(PATIENCE).unwrap().success(), "the last spans do not hold up the end");
}
