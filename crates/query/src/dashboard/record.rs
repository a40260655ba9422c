//! `/record`: whether the record can be trusted: retention and its runs, gaps, dead letters, silent agents, freshness.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use chrono::TimeDelta;
use connlog_model::clock::Timestamp;
use connlog_store::read::{Gap, SilentAgent};

use super::page::{Frame, PageError, Viewer, html};
use super::text::{counted, duration, link, number, visible};
use super::view::GapRow;
use super::zone::Moment;
use crate::paging::value;
use crate::serve::Service;

/// Rows of each table.
const ROWS: i64 = 20;
/// An agent that has something open and was not heard for so long is shown.
const SILENT: TimeDelta = TimeDelta::minutes(2);

/// A run of the purge.
struct Run {
    began: Moment,
    took: String,
    cutoff: Option<Moment>,
    outcome: String,
    /// What it removed; nothing for those who see a part of the log only.
    removed: Option<String>,
    error: String,
}

/// An agent that is silent.
struct Silent {
    name: String,
    workspace: String,
    href: String,
    last_seen: Moment,
    silence: String,
    open: String,
}

#[derive(Template)]
#[template(path = "record.html")]
struct RecordPage {
    frame: Frame,
    retention: String,
    floor: Option<Moment>,
    last_complete: Option<Moment>,
    backlog: Option<String>,
    runs: Vec<Run>,
    events_lost: String,
    events_rejected: String,
    has_gaps: bool,
    gaps: Vec<GapRow>,
    /// Where older ones are, and how many.
    more_gaps: Option<(String, String)>,
    silent: Vec<Silent>,
    has_more_silent: bool,
    fresh: Option<(Moment, String)>,
    heard: Option<(Moment, String)>,
}

/// Shows the health of the record.
pub(super) async fn record(
    State(service): State<Service>,
    viewer: Viewer,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    let offset = value(&parameters, "gaps").and_then(|offset| offset.parse::<u32>().ok()).map_or(0, i64::from);
    let (now, reach, zone) = (service.clock.now(), viewer.reach(), viewer.zone());
    let sees_all = reach.organizations.is_none();
    let (state, gaps, silent, attended) = tokio::join!(
        service.reads.retention_state(ROWS, now),
        service.reads.gaps(&reach, ROWS, offset),
        service.reads.silent_agents(&reach, now - SILENT, ROWS + 1),
        service.reads.attended_at(),
    );
    let (state, gaps, silent) = (state?, gaps?, silent?);
    let most = usize::try_from(ROWS).unwrap_or(usize::MAX);
    let ago = |time: Timestamp| (Moment::full(zone, time), duration(now - time));
    let runs = state.runs.into_iter().map(|run| Run {
        began: Moment::full(zone, run.started_at),
        took: duration(run.finished_at - run.started_at),
        cutoff: run.cutoff.map(|cutoff| Moment::full(zone, cutoff)),
        removed: sees_all.then(|| {
            let entries = run.removed.rows_dropped + run.removed.rows_trimmed + run.removed.open_removed;
            format!("{}, {} whole days", counted(entries, "entry", "entries"), run.removed.days_dropped)
        }),
        outcome: run.outcome,
        error: visible(&run.error.unwrap_or_default()),
    });
    let page = RecordPage {
        retention: state.retention.map_or_else(|| "for ever, or not purged yet".to_owned(), duration),
        floor: state.floor.map(|floor| Moment::full(zone, floor)),
        last_complete: state.last_complete.map(|time| Moment::full(zone, time)),
        backlog: sees_all.then(|| {
            format!(
                "{} of {}",
                counted(state.backlog_rows, "entry", "entries"),
                counted(state.backlog_days, "day", "days")
            )
        }),
        runs: runs.collect(),
        events_lost: number(gaps.events_lost),
        events_rejected: number(gaps.events_rejected),
        has_gaps: gaps.count > 0,
        more_gaps: (gaps.count > offset + ROWS).then(|| {
            let left = counted(gaps.count - offset - ROWS, "older gap", "older gaps");
            (link("/record", &[("gaps", &(offset + ROWS).to_string())]), left)
        }),
        gaps: gaps.gaps.iter().map(|gap: &Gap| GapRow::of(gap, Moment::full(zone, gap.time()))).collect(),
        silent: silent.iter().take(most).map(|agent| silent_agent(agent, zone, now)).collect(),
        has_more_silent: silent.len() > most,
        fresh: service.freshness.as_of().map(ago),
        heard: attended?.map(ago),
        frame: viewer.frame,
    };
    Ok(html(&page))
}

fn silent_agent(agent: &SilentAgent, zone: super::Zone, now: Timestamp) -> Silent {
    Silent {
        name: visible(&agent.agent_name),
        workspace: visible(&agent.workspace_name),
        href: format!("/workspaces/{}", agent.workspace_id),
        last_seen: Moment::full(zone, agent.last_seen_at),
        silence: duration(now - agent.last_seen_at),
        open: number(agent.open_connections),
    }
}
