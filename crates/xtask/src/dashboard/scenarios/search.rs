//! Finding entries: menus, words, pages, and a span drawn by hand.

use anyhow::{Context as _, Result, bail, ensure};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{DOWN, ENTER, ESCAPE, counts_agree, ids};
use crate::dashboard::Stage;
use crate::demo::Api;

/// Uses every menu and field, and every preset.
pub(in crate::dashboard) async fn filters(stage: &Stage, api: &Api) -> Result<()> {
    let browser = &stage.browser;
    let owner = &stage.directory.users[stage.directory.workspaces[0].owner].username;
    let chosen = [
        ("organization", "platform"),
        ("type", "vscode"),
        ("method", "tunnel"),
        ("app", "cursor"),
        ("status", "ongoing"),
        ("workspace_owner", owner.as_str()),
        ("workspace", "api-1"),
    ];
    for (name, value) in chosen {
        browser.open("/").await?;
        browser.click(".filters summary").await?;
        let field = format!(".filters [name={name}]");
        let is_menu = browser.run(&format!("return document.querySelector('{field}').matches('select')")).await?;
        if is_menu == Value::Bool(true) {
            browser.find(&field).await?.select_by_value(value).await?;
        } else {
            browser.fill(&field, value).await?;
            browser.press(ESCAPE).await?;
        }
        browser.click(".filters button").await?;
        browser.until("the log is filtered", "return new URL(location).searchParams.has('q')").await?;
        let query = counts_agree(browser, api).await?;
        ensure!(query == format!("{name}:{value}"), "the menu made {query:?}");
    }
    // A time, in the zone that is shown, and a second menu keeps the first.
    browser.open("/?q=status%3Acompleted").await?;
    browser.run("document.querySelector('.filters').open = true; document.querySelector('[name=from]').value = '2026-01-01T00:00'").await?;
    browser.find(".filters [name=type]").await?.select_by_value("ssh").await?;
    browser.click(".filters button").await?;
    browser.until("the log is filtered", "return location.search.includes('connected')").await?;
    let query = counts_agree(browser, api).await?;
    ensure!(query == r#"status:completed type:ssh connected_after:"2026-01-01T00:00:00Z""#, "the menus made {query:?}");
    let presets = browser.count(".presets a").await?;
    for number in 1..=presets {
        browser.open("/").await?;
        browser.click(&format!(".presets a:nth-of-type({number})")).await?;
        browser.find("[aria-current=page]").await?;
        counts_agree(browser, api).await?;
    }
    browser.open("/").await?;
    browser.find("#range").await?.select_by_value("24h").await?;
    browser.click(".search button").await?;
    browser.until("the range is in the address", "return location.search.includes('range=24h')").await?;
    browser.find(".count").await.map(drop)
}

/// Types a search with the help of completion, by keys alone.
pub(in crate::dashboard) async fn completion(stage: &Stage, api: &Api) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/").await?;
    browser.press("/").await?;
    browser.press("sta").await?;
    browser
        .until("status: is suggested", "return document.querySelector('[role=option]')?.dataset.text === 'status:'")
        .await?;
    browser.press(&format!("{DOWN}{ENTER}")).await?;
    browser
        .until(
            "its values are suggested",
            "return document.querySelector('[role=option]')?.dataset.text === 'status:ongoing'",
        )
        .await?;
    browser.press(&format!("{DOWN}{ENTER}")).await?;
    let user = &stage.directory.users[1].username;
    browser.press(&format!("workspace_owner:{}", &user[..2])).await?;
    let suggested = format!(
        "return [...document.querySelectorAll('[role=option]')].some((option) => option.dataset.text === 'workspace_owner:{user}')"
    );
    browser.until("a user of the directory is suggested", &suggested).await?;
    browser.press(&format!("{DOWN}{ENTER}{ENTER}")).await?;
    browser.until("it is searched", "return location.search.includes('status')").await?;
    let query = counts_agree(browser, api).await?;
    ensure!(query.trim().starts_with("status:ongoing workspace_owner:"), "completion made {query:?}");
    let organizations = browser
        .run_async("const done = arguments[0]; fetch('/complete?word=organization:').then((a) => a.json()).then(done)")
        .await?;
    ensure!(
        organizations.as_array().is_some_and(|all| all.len() == stage.directory.organizations.len()),
        "{organizations}"
    );
    Ok(())
}

/// Mistypes a key.
pub(in crate::dashboard) async fn bad_query(stage: &Stage) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/").await?;
    browser.fill("#q", "type:ssh statos:ongoing ").await?;
    browser.press(ENTER).await?;
    let why = browser.text(".word.bad .why").await?;
    ensure!(why.contains("Did you mean \"status\""), "the hint is {why:?}");
    let word = browser.text(".word.bad code").await?;
    ensure!(word == "statos:ongoing", "the error stands under {word:?}");
    Ok(())
}

/// Walks through all pages, and some of the way back.
pub(in crate::dashboard) async fn paging(stage: &Stage, api: &Api) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/?q=type%3Avscode").await?;
    let expected = api.count("type:vscode").await?;
    let mut pages = vec![ids(browser).await?];
    while browser.count("[rel=next]").await? > 0 {
        let before = browser.here().await?;
        browser.click("[rel=next]").await?;
        browser
            .until(
                "the next page",
                &format!(
                    "return location.pathname + location.search !== {before:?} && document.readyState === 'complete'"
                ),
            )
            .await?;
        pages.push(ids(browser).await?);
    }
    let mut all: Vec<&String> = pages.iter().flatten().collect();
    let shown = all.len();
    all.sort_unstable();
    all.dedup();
    ensure!(
        all.len() == shown && shown as u64 == expected,
        "{shown} rows, {} of them different, of {expected}",
        all.len()
    );
    ensure!(pages.len() > 3, "there are only {} pages", pages.len());
    for page in pages.iter().rev().skip(1) {
        let before = browser.here().await?;
        browser.click("[rel=prev]").await?;
        browser
            .until(
                "the page before",
                &format!(
                    "return location.pathname + location.search !== {before:?} && document.readyState === 'complete'"
                ),
            )
            .await?;
        ensure!(ids(browser).await? == *page, "the way back shows what the way there did");
    }
    ensure!(browser.count("[rel=prev]").await? == 0, "the first page has none before it");
    browser.back().await?;
    browser.find("[data-id]").await?;
    ensure!(ids(browser).await? == pages[1], "the browser's own way back works, too");
    Ok(())
}

/// Drags over the histogram.
pub(in crate::dashboard) async fn brush(stage: &Stage, api: &Api) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/?range=24h").await?;
    browser.find("[data-brush]").await?;
    let place = browser.run("const r = document.querySelector('[data-brush]').getBoundingClientRect(); return [r.left, r.top, r.width, r.height]").await?;
    let place: Vec<f64> = serde_json::from_value(place)?;
    let [left, top, width, height] = place[..] else { bail!("a rectangle has four numbers") };
    let y = top + height / 2.0;
    browser.drag((left + width * 0.35, y), (left + width * 0.75, y)).await?;
    browser.until("the span is in the address", "return location.search.includes('connected_before')").await?;
    browser.find(".count").await?;
    let query = counts_agree(browser, api).await?;
    let hours = span_hours(&query)?;
    ensure!((9.0..12.0).contains(&hours), "four tenths of a day were drawn, {hours} h were taken: {query}");
    // A bar without a drag leads to its own span.
    browser.open("/?range=24h").await?;
    browser.click("[data-brush] a:nth-last-of-type(3)").await?;
    browser.until("the bar is in the address", "return location.search.includes('connected')").await?;
    counts_agree(browser, api).await.map(drop)
}

fn span_hours(query: &str) -> Result<f64> {
    let time = |key: &str| -> Result<DateTime<Utc>> {
        let rest = query.split_once(&format!("{key}:\"")).context("the key is there")?.1;
        Ok(rest.split('"').next().unwrap_or_default().parse()?)
    };
    Ok((time("connected_before")? - time("connected_after")?).as_seconds_f64() / 3600.0)
}
