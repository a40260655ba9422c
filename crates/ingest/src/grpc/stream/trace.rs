//! A batch of a stream as a span: from its arrival to its acknowledgement. The stream itself is none, since it lives for hours.

use std::collections::HashMap;

use connlog_proto::v1;
use opentelemetry::trace::{SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, global};

/// Begins the span of a batch, as part of the trace that the batch names.
pub(super) fn of_batch(batch: &v1::EventBatch) -> Context {
    let carrier = HashMap::from([
        ("traceparent".to_owned(), batch.traceparent.clone()),
        ("tracestate".to_owned(), batch.tracestate.clone()),
    ]);
    let parent =
        global::get_text_map_propagator(|propagator| propagator.extract_with_context(&Context::new(), &carrier));
    let tracer = global::tracer("connlog");
    let span = tracer
        .span_builder("connlog.v1.ConnectionLog/StreamEvents batch")
        .with_kind(SpanKind::Server)
        .with_attributes([KeyValue::new("connlog.batch.events", count(batch.events.len()))])
        .start_with_context(&tracer, &parent);
    parent.with_span(span)
}

/// Ends it, acknowledged. One that is not ends when it is dropped.
pub(super) fn end(trace: &Context, rejected: usize) {
    trace.span().set_attribute(KeyValue::new("connlog.batch.rejected", count(rejected)));
    trace.span().end();
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
