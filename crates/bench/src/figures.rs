//! The figures of the report: their units, and what is wanted of them.

use std::fmt;

/// The bound that a figure has to meet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    /// Of the ratio to the baseline of the same run.
    RatioAtLeast(f64),
    /// Of the ratio to the baseline of the same run.
    RatioAtMost(f64),
    /// Of a value that does not depend on the machine.
    AtLeast(f64),
    /// Of a value that does not depend on the machine.
    AtMost(f64),
    /// Of a time in ms: printed, and never a reason to fail, since machines differ.
    TargetMillis(f64),
}

impl Bound {
    /// Whether a figure that misses it fails the run.
    pub(crate) fn fails_the_run(self) -> bool {
        !matches!(self, Self::TargetMillis(_))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtLeast(least) => write!(formatter, "ratio >= {least}"),
            Self::RatioAtMost(most) => write!(formatter, "ratio <= {most}"),
            Self::AtLeast(least) => write!(formatter, ">= {least}"),
            Self::AtMost(most) => write!(formatter, "<= {most}"),
            Self::TargetMillis(most) => write!(formatter, "target {most} ms"),
        }
    }
}

/// A figure of the report.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) key: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) bound: Option<Bound>,
}

const fn figure(key: &'static str, unit: &'static str, bound: Option<Bound>) -> Definition {
    Definition { key, unit, bound }
}

/// All figures, in the order of the report.
pub(crate) const FIGURES: [Definition; 37] = [
    figure("ingest.peer", "events/s", Some(Bound::RatioAtLeast(2.5))),
    figure("ingest.plain", "events/s", Some(Bound::RatioAtLeast(1.5))),
    figure("ingest.floor", "events/s", None),
    figure("ingest.cpu_per_event", "us", Some(Bound::RatioAtMost(0.4))),
    figure("ingest.round_trips", "a transaction", Some(Bound::AtMost(4.0))),
    figure("ingest.hot_ratio", "of updates", Some(Bound::AtLeast(0.95))),
    figure("ingest.unary_latency_p99", "ms", Some(Bound::RatioAtMost(2.5))),
    figure("query.first_page", "ms p95", Some(Bound::TargetMillis(20.0))),
    figure("query.deep_cursor", "ms p95", Some(Bound::TargetMillis(20.0))),
    figure("query.no_match", "ms p95", Some(Bound::TargetMillis(20.0))),
    figure("query.worst_filter", "ms p95", Some(Bound::TargetMillis(8.0))),
    figure("query.ongoing_many", "ms p95", Some(Bound::TargetMillis(8.0))),
    figure("query.ongoing_few", "ms p95", Some(Bound::TargetMillis(50.0))),
    figure("query.count_all", "ms p95", Some(Bound::RatioAtMost(0.02))),
    figure("query.count_org", "ms p95", Some(Bound::RatioAtMost(0.04))),
    figure("export.ndjson", "rows/s", Some(Bound::RatioAtLeast(0.6))),
    figure("storage.open", "bytes a row", Some(Bound::RatioAtMost(1.4))),
    figure("storage.compacted", "bytes a row", Some(Bound::RatioAtMost(0.9))),
    figure("purge.day", "s", Some(Bound::RatioAtMost(0.02))),
    figure("load.connect", "s", None),
    figure("load.memory_per_stream", "KiB", None),
    figure("load.idle_cpu", "% of a core", None),
    figure("load.idle_cpu_postgres", "% of a core", None),
    figure("load.burst", "events/s", None),
    figure("load.burst_memory", "MiB at most", None),
    figure("load.reconnect", "s", None),
    figure("load.reconnect_errors", "errors of agents", None),
    figure("load.reconnect_memory", "MiB at most", None),
    figure("load.largest_fleet", "agents", None),
    figure("load.largest_fleet_memory", "MiB at most", None),
    figure("load.mixed_ack_p99", "ms", None),
    figure("load.mixed_query_p95", "ms", None),
    figure("load.pooled_ingest", "events/s", None),
    figure("load.pooled_first_page", "ms", None),
    figure("load.growth_ingest", "events/s", None),
    figure("load.growth_first_page", "ms", None),
    figure("load.growth_worst_filter", "ms", None),
];

/// The figure of a key.
///
/// # Panics
/// If the table has none: a mistake in this program.
pub(crate) fn definition(key: &str) -> &'static Definition {
    FIGURES.iter().find(|definition| definition.key == key).expect("each reported figure is in the table")
}
