//! Batches as spans: from being sent to being acknowledged. They are made by the program's OpenTelemetry SDK, if it has one.

use std::collections::{HashMap, VecDeque};

use connlog_proto::v1;
use opentelemetry::trace::{SpanKind, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, global};

/// The batches of a stream that are not acknowledged, each with its last sequence number. What is left when the stream ends
/// ends with it.
#[derive(Default)]
pub(crate) struct SentBatches(VecDeque<(u64, Context)>);

impl SentBatches {
    /// Begins the span of a batch, and tells the server of it.
    pub(crate) fn begin(&mut self, batch: &mut v1::EventBatch, last_seq: u64) {
        let tracer = global::tracer("connlog-agent");
        let events = i64::try_from(batch.events.len()).unwrap_or(i64::MAX);
        let builder = tracer.span_builder("send batch").with_kind(SpanKind::Client);
        let attributes = [KeyValue::new("connlog.batch.events", events)];
        let span = builder.with_attributes(attributes).start_with_context(&tracer, &Context::new());
        let trace = Context::new().with_span(span);
        if !trace.span().span_context().is_valid() {
            return;
        }
        let mut carrier = HashMap::new();
        global::get_text_map_propagator(|propagator| propagator.inject_context(&trace, &mut carrier));
        batch.traceparent = carrier.remove("traceparent").unwrap_or_default();
        batch.tracestate = carrier.remove("tracestate").unwrap_or_default();
        self.0.push_back((last_seq, trace));
    }

    /// Ends those up to `committed_seq`.
    pub(crate) fn acknowledged(&mut self, committed_seq: u64) {
        while let Some((_, trace)) = self.0.pop_front_if(|(last_seq, _)| *last_seq <= committed_seq) {
            trace.span().end();
        }
    }
}
