//! A commit in the traces of what it commits.

use opentelemetry::trace::{Span as _, SpanContext, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue, global};

use super::Queued;

/// The span of a commit. It is part of the trace of the first submission that is traced; those of the others get one that links
/// to it.
pub(super) struct CommitSpan {
    first: Context,
    others: Vec<Context>,
}

impl CommitSpan {
    pub(super) fn begin(gathered: &[Queued], writer: i16) -> Self {
        let traces = gathered.iter().map(|queued| &queued.submission.trace);
        let mut sampled = traces.filter(|trace| trace.span().span_context().is_sampled());
        let Some(first) = sampled.next() else {
            return Self { first: Context::new(), others: Vec::new() };
        };
        let events: usize = gathered.iter().map(|queued| queued.submission.items.len()).sum();
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let attributes = [
            KeyValue::new("connlog.writer", i64::from(writer)),
            KeyValue::new("connlog.batch.events", count(events)),
            KeyValue::new("connlog.batch.submissions", count(gathered.len())),
        ];
        let first = begin(first, &attributes, None);
        let shared = first.span().span_context().clone();
        let others = sampled.map(|trace| begin(trace, &attributes, Some(shared.clone()))).collect();
        Self { first, others }
    }

    /// Whose spans the statements of the commit are.
    pub(super) fn context(&self) -> Context {
        self.first.clone()
    }

    /// Ends it. A commit that failed says why.
    pub(super) fn end(self, failure: Option<&str>) {
        for trace in std::iter::once(self.first).chain(self.others) {
            if let Some(failure) = &failure {
                trace.span().set_status(Status::error((*failure).to_owned()));
            }
            trace.span().end();
        }
    }
}

fn begin(parent: &Context, attributes: &[KeyValue], shared: Option<SpanContext>) -> Context {
    let tracer = global::tracer("connlog");
    let builder = tracer.span_builder("commit").with_attributes(attributes.to_vec());
    let mut span = builder.start_with_context(&tracer, parent);
    if let Some(shared) = shared {
        span.add_link(shared, Vec::new());
    }
    parent.with_span(span)
}
