//! How long calls take, by method and outcome, as metrics and as traces. A stream counts with the time until its answer begins.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use connlog_runtime::traces;
use opentelemetry::KeyValue;
use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{Status, TraceContextExt as _};
use tonic::Code;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

/// The methods that there are. Whoever asks for others does not fill the memory with names.
const METHODS: [&str; 8] = [
    "connlog.v1.ConnectionLog/StreamEvents",
    "connlog.v1.ConnectionLog/ReportConnection",
    "connlog.v1.ConnectionLog/ReportEvents",
    "connlog.v1.Directory/Sync",
    "coder.agent.v2.Agent/ReportConnection",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// The method of a path.
fn method(path: &str) -> &'static str {
    let asked = path.trim_start_matches('/');
    METHODS.into_iter().find(|method| *method == asked).unwrap_or("other")
}

/// Measures the calls of a server.
#[derive(Debug, Clone, Copy)]
pub struct Measure;

impl<S> Layer<S> for Measure {
    type Service = Measured<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Measured { inner }
    }
}

/// A server whose calls are measured.
#[derive(Debug, Clone)]
pub struct Measured<S> {
    inner: S,
}

impl<S, B, C> Service<Request<B>> for Measured<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (began, method) = (Instant::now(), method(request.uri().path()));
        let trace = traces::serve(method.to_owned(), request.headers());
        let answered = {
            let _for_what_begins_before_it_is_polled = trace.clone().attach();
            self.inner.call(request)
        };
        Box::pin(async move {
            let response = answered.with_context(trace.clone()).await?;
            // An answer that ends well has its status in the trailers; one that fails at once has it here.
            let status =
                response.headers().get("grpc-status").map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
            let span = trace.span();
            span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(i32::from(status))));
            if status != Code::Ok {
                span.set_status(Status::error(format!("{status:?}")));
            }
            metrics::histogram!("connlog_ingest_call_seconds", "method" => method, "code" => format!("{status:?}"))
                .record(began.elapsed().as_secs_f64());
            Ok(response)
        })
    }
}
