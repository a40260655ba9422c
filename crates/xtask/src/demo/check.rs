//! The demo's check: the log says what was sent, filter by filter, and the purge removes it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use connlog_model::app::ConnectionType;
use connlog_model::clock::rfc3339;
use connlog_model::method::Method;

use super::api::Api;
use super::collected;
use super::directory::Directory;
use super::ledger::{Expected, Ledger};
use super::observed;
use super::services::Services;

/// Far enough ahead that a retention of 90 days takes everything.
const PURGE_AHEAD: TimeDelta = TimeDelta::days(100);
/// Entries of a page while all of them are read.
const PAGE: u64 = 250;

type Filter<'a> = (String, Box<dyn Fn(&Expected) -> bool + 'a>);

/// Checks, and prints what was checked.
pub(crate) async fn check(api: &Api, ledger: &Ledger, directory: &Directory, services: &Services) -> Result<()> {
    let entries = ledger.entries();
    println!("checking {} entries from {} events", entries.len(), ledger.acknowledged());
    let filters = filters(directory, &entries);
    let mut matching = 0;
    for (query, matches) in &filters {
        let expected = entries.iter().filter(|entry| matches(entry)).count() as u64;
        let counted = api.count(query).await?;
        ensure!(counted == expected, "{query:?}: the log has {counted} entries, {expected} were sent");
        matching += usize::from(expected > 0);
    }
    println!("ok: {} queries count what was sent ({matching} of them match something)", filters.len());
    all_pages(api, &entries).await?;
    purge(api, services, &entries).await?;
    observed::check(services).await?;
    collected::check(services)
}

/// Every filter at least once, each with what it must match.
fn filters<'a>(directory: &'a Directory, entries: &[Expected]) -> Vec<Filter<'a>> {
    let mut filters: Vec<Filter<'a>> = vec![(String::new(), Box::new(|_| true))];
    for (number, (id, name)) in directory.organizations.iter().enumerate() {
        let of = move |entry: &Expected| directory.workspaces[entry.workspace].organization == number;
        filters.push((format!("organization:{name}"), Box::new(of)));
        filters.push((format!("organization:{id}"), Box::new(of)));
    }
    for (number, user) in directory.users.iter().enumerate() {
        let owns = move |entry: &Expected| directory.workspaces[entry.workspace].owner == number;
        let acts = move |entry: &Expected| entry.user == Some(number);
        filters.push((format!("workspace_owner:{}", user.username), Box::new(owns)));
        filters.push((format!("workspace_owner_email:{}", user.email.to_uppercase()), Box::new(owns)));
        filters.push((format!("username:{}", user.username), Box::new(acts)));
        filters.push((format!("user_email:{}", user.email), Box::new(acts)));
    }
    filters.push(("workspace_owner:me".to_owned(), Box::new(|entry| directory.workspaces[entry.workspace].owner == 0)));
    filters.push(("username:me".to_owned(), Box::new(|entry| entry.user == Some(0))));
    filters.push(("username:nobody".to_owned(), Box::new(|_| false)));
    for family in ConnectionType::ALL {
        filters.push((format!("type:{family}"), Box::new(move |entry| entry.connection_type() == family)));
    }
    for method in Method::ALL {
        filters.push((format!("method:{method}"), Box::new(move |entry| entry.method == method)));
    }
    let apps: BTreeSet<&str> = entries.iter().filter_map(|entry| entry.app).collect();
    for app in apps {
        filters.push((format!("app:{app}"), Box::new(move |entry| entry.app == Some(app))));
    }
    for (number, workspace) in directory.workspaces.iter().enumerate() {
        filters.push((format!("workspace_id:{}", workspace.id), Box::new(move |entry| entry.workspace == number)));
    }
    if let Some(entry) = entries.iter().find(|entry| !entry.method.is_web()) {
        let id = entry.id;
        filters.push((format!("connection_id:{id}"), Box::new(move |entry| entry.id == id)));
    }
    filters.push(("status:ongoing".to_owned(), Box::new(|entry| !entry.ended)));
    filters.push(("status:completed".to_owned(), Box::new(|entry| entry.ended && !entry.method.is_web())));
    let mut times: Vec<_> = entries.iter().map(|entry| entry.connect_time).collect();
    times.sort_unstable();
    let (early, late) = (times[times.len() / 3], times[times.len() * 2 / 3]);
    filters
        .push((format!("connected_after:\"{}\"", rfc3339(early)), Box::new(move |entry| entry.connect_time >= early)));
    filters
        .push((format!("connected_before:\"{}\"", rfc3339(late)), Box::new(move |entry| entry.connect_time <= late)));
    filters.push((
        format!(
            "connected_after:\"{}\" connected_before:\"{}\" type:vscode status:completed",
            rfc3339(early),
            rfc3339(late)
        ),
        Box::new(move |entry| {
            (early..=late).contains(&entry.connect_time)
                && entry.connection_type() == ConnectionType::Vscode
                && entry.ended
        }),
    ));
    filters
}

/// Page by page, every entry once.
async fn all_pages(api: &Api, entries: &[Expected]) -> Result<()> {
    let (mut seen, mut offset) = (BTreeSet::new(), 0);
    loop {
        let page = api.page("", PAGE, offset).await?;
        let rows = page["connection_logs"].as_array().context("there is no list")?;
        for row in rows {
            let of_connection = row["ssh_info"]["connection_id"].as_str();
            let id = of_connection.or_else(|| row["id"].as_str()).context("an entry has no id")?;
            ensure!(seen.insert(id.to_owned()), "{id} is on two pages");
        }
        offset += PAGE;
        if rows.is_empty() {
            break;
        }
    }
    let sent: BTreeSet<String> = entries.iter().map(|entry| entry.id.to_string()).collect();
    ensure!(seen == sent, "the pages have {} entries, {} were sent", seen.len(), sent.len());
    println!("ok: {} entries, each on one page", seen.len());
    Ok(())
}

/// Everything goes but what live agents list.
async fn purge(api: &Api, services: &Services, entries: &[Expected]) -> Result<()> {
    let kept = entries.iter().filter(|entry| !entry.ended && entry.streamed).count() as u64;
    let due = entries.len() as u64 - kept;
    let summary = services.purge(&rfc3339(Utc::now() + PURGE_AHEAD))?;
    let number = |key: &str| summary[key].as_u64().with_context(|| format!("the purge's summary has no {key}"));
    let removed = number("rows_dropped")? + number("rows_trimmed")? + number("open_removed")?;
    ensure!(summary["outcome"] == "complete", "the purge did not complete: {summary}");
    ensure!(removed == due, "the purge removed {removed} entries, {due} were due: {summary}");
    let (all, ongoing) = (api.count("").await?, api.count("status:ongoing").await?);
    ensure!(all == kept && ongoing == kept, "{all} entries are left, {ongoing} of them ongoing; {kept} should be");
    println!("ok: the purge removed {removed} entries and kept {kept} that live agents have open");
    Ok(())
}
