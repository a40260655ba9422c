//! What somebody does at the dashboard, one thing a function.

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use connlog_model::identity::connection_row_id;
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use serde_json::Value;
use uuid::Uuid;

use super::Stage;
use super::browser::Browser;
use crate::demo::{Api, authorized, timestamp};

const ENTER: &str = "\u{e007}";
const TAB: &str = "\u{e004}";
const DOWN: &str = "\u{e015}";
const ESCAPE: &str = "\u{e00c}";

/// Comes to a page without a session, gets the token wrong, and then right.
pub(super) async fn signs_in(stage: &Stage) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/?q=type%3Assh").await?;
    ensure!(browser.here().await?.starts_with("/signin?next="), "a page without a session leads to the sign-in");
    browser.fill("#token", "not-a-token").await?;
    browser.press(ENTER).await?;
    browser.find("#wrong").await?;
    browser.fill("#token", &stage.services.auditor_token).await?;
    browser.press(ENTER).await?;
    browser.find("[data-days]").await?;
    ensure!(browser.here().await? == "/?q=type%3Assh", "signing in leads to where one wanted to go");
    let cookies = browser.run("return document.cookie").await?;
    ensure!(!cookies.as_str().unwrap_or_default().contains("connlog_session"), "scripts cannot read the session");
    browser.watched().await.map(drop)
}

/// The query in the address, and how many entries the page and the API count for it.
async fn counts_agree(browser: &Browser, api: &Api) -> Result<String> {
    let query = browser.run("return new URL(location).searchParams.get('q') ?? ''").await?;
    let query = query.as_str().unwrap_or_default().to_owned();
    let shown = browser.text(".count").await?;
    let counted = api.count(&query).await?;
    let shown_number: String = shown.chars().filter(char::is_ascii_digit).collect();
    ensure!(shown_number == counted.to_string(), "{query:?}: the page says {shown:?}, the API {counted}");
    Ok(query)
}

/// Uses every menu and field, and every preset.
pub(super) async fn filters(stage: &Stage, api: &Api) -> Result<()> {
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
pub(super) async fn completion(stage: &Stage, api: &Api) -> Result<()> {
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
pub(super) async fn bad_query(stage: &Stage) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/").await?;
    browser.fill("#q", "type:ssh statos:ongoing ").await?;
    browser.press(ENTER).await?;
    let why = browser.text(".word.bad .why").await?;
    ensure!(why.contains("Did you mean \"status\""), "the hint is {why:?}");
    let word = browser.text(".word.bad code").await?;
    ensure!(word == "statos:ongoing", "the error stands under {word:?}");
    // The browser itself notes the status of the page.
    browser.watched().await.map(drop)
}

async fn ids(browser: &Browser) -> Result<Vec<String>> {
    let ids = browser.run("return [...document.querySelectorAll('[data-id]')].map((row) => row.dataset.id)").await?;
    Ok(serde_json::from_value(ids)?)
}

/// Walks through all pages, and some of the way back.
pub(super) async fn paging(stage: &Stage, api: &Api) -> Result<()> {
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

/// Opens an entry, and looks for others like it.
pub(super) async fn entry(stage: &Stage) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/?q=app%3Acursor").await?;
    let id = ids(browser).await?.into_iter().next().context("there is an entry")?;
    browser.click("a.when").await?;
    browser.find(".entry dl").await?;
    ensure!(browser.here().await? == format!("/entries/{id}"), "the time leads to the entry");
    let text = browser.text(".entry").await?;
    ensure!(text.contains(&id) && text.contains("cursor"), "{text}");
    browser.find(".copy").await?;
    browser.click(".same[href*='workspace%5Fid']").await?;
    browser.find("[data-days]").await?;
    ensure!(browser.here().await?.starts_with("/?q=workspace%5Fid"), "a field leads to what shares it");
    for (from, page) in [("a[href^='/workspaces/']", "Workspace"), ("a[href^='/users/']", "User")] {
        browser.open("/?q=method%3Assh").await?;
        browser.click(&format!(".row {from}")).await?;
        browser.until("the page is there", "return document.querySelector('.subject') !== null").await?;
        let title = browser.text("h1").await?;
        ensure!(title.starts_with(page), "{title}");
        ensure!(browser.count(".lanes rect").await? > 0, "the sessions of the {page} are drawn");
    }
    Ok(())
}

/// Drags over the histogram.
pub(super) async fn brush(stage: &Stage, api: &Api) -> Result<()> {
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

/// Reports an event as the agent of the workspace that nobody uses.
async fn report(stage: &Stage, id: Uuid, action: v1::Action) -> Result<()> {
    let connection = v1::Connection {
        id: id.as_bytes().to_vec(),
        action: action.into(),
        timestamp: Some(timestamp(Utc::now())),
        ip: "192.0.2.7".to_owned(),
        app_name: "windsurf".to_owned(),
        status_code: 7,
        ..v1::Connection::default()
    };
    let mut client = ConnectionLogClient::connect(format!("http://{}", stage.services.ingest)).await?;
    let request = v1::ReportConnectionRequest { connection: Some(connection) };
    client.report_connection(authorized(request, &stage.directory.idle_workspace().agent_token)).await?;
    Ok(())
}

/// The row of a connection to that workspace.
fn row_of(stage: &Stage, connection: Uuid) -> String {
    let id = connection_row_id(connection, stage.directory.idle_workspace().id, "main");
    format!(".row[data-id='{id}']")
}

/// Watches connections come and go, at the top of the page and in the middle of reading, and with the service gone for a while.
pub(super) async fn live(stage: &mut Stage) -> Result<()> {
    let browser = &stage.browser;
    let says =
        |text: &str| format!("return document.querySelector('[data-live-state]').textContent.includes({text:?})");
    browser.open("/").await?;
    // While the page is looked at, before anybody wants it live.
    let early = Uuid::new_v4();
    report(stage, early, v1::Action::Connect).await?;
    browser.click("[data-live]").await?;
    browser.find(&row_of(stage, early)).await.context("what came before the click")?;
    browser.until("it is live", &says("Live.")).await?;
    let first = Uuid::new_v4();
    let row = row_of(stage, first);
    report(stage, first, v1::Action::Connect).await?;
    let marks = browser.text(&format!("{row} .marks")).await?;
    ensure!(marks.contains("ongoing"), "it is ongoing: {marks}");
    ensure!(browser.count(&format!(".day:first-child {row}:first-child")).await? == 1, "and on top");
    report(stage, first, v1::Action::Disconnect).await?;
    let ended = format!("return document.querySelector(\"{row} .what\").textContent.includes('exit 7')");
    browser.until("its row changes in place", &ended).await?;
    ensure!(browser.count(&row).await? == 1, "and is there once");

    // Whoever reads further down is not moved.
    browser.run("scrollTo(0, 150)").await?;
    browser.until("it is scrolled", "return scrollY > 100").await?;
    let place = "return document.querySelectorAll('.row')[9].getBoundingClientRect().top";
    let before = browser.run(place).await?;
    let second = Uuid::new_v4();
    report(stage, second, v1::Action::Connect).await?;
    let offered =
        "const offer = document.querySelector('[data-live-offer]'); return !offer.hidden && offer.textContent";
    browser.until("it is offered", &format!("{offered} === 'Show 1 new entry'")).await?;
    ensure!(browser.run(place).await? == before, "what is being read stays where it is");
    browser.click("[data-live-offer]").await?;
    browser.find(&row_of(stage, second)).await.context("what was offered")?;
    browser.until("it is seen", "return scrollY === 0").await?;

    stage.services.stop_query()?;
    browser.until("it says that the line is broken", &says("Reconnecting")).await?;
    let meanwhile = Uuid::new_v4();
    report(stage, meanwhile, v1::Action::Connect).await?;
    stage.services.start_query()?;
    browser.until("it is live again", &says("Live.")).await?;
    let third = Uuid::new_v4();
    report(stage, third, v1::Action::Connect).await?;
    for connection in [meanwhile, third] {
        let row = row_of(stage, connection);
        browser.until("it brings what came", &format!("document.querySelector('[data-live-offer]').click(); return document.querySelector(\"{row}\") !== null")).await?;
    }
    browser.click("[data-live]").await?;
    browser.watched().await.map(drop)
}

/// Exports in every format.
pub(super) async fn export(stage: &Stage, api: &Api) -> Result<()> {
    let browser = &stage.browser;
    let query = "status:completed";
    let expected = usize::try_from(api.count(query).await?)?;
    browser.open("/?q=status%3Acompleted").await?;
    browser.click(".actions a[href^='/export']").await?;
    let announced = browser.text("[data-entries]").await?;
    ensure!(announced.starts_with(&expected.to_string()), "{announced}, not {expected}");
    for (number, file, beside) in
        [(1, "connection-log.ndjson", 1), (2, "connection-log.csv", 2), (3, "connection-log.ocsf.ndjson", 1)]
    {
        browser.run("document.querySelector('[data-export-state]').textContent = ''").await?;
        browser.click(&format!(".choices li:nth-child({number}) a")).await?;
        let done = format!(
            "return document.querySelector('[data-export-state]').textContent === 'Complete: {expected} entries.'"
        );
        browser.until("the export is complete", &done).await?;
        let lines = browser.downloaded(file).await?.lines().count();
        ensure!(lines == expected + beside, "{file} has {lines} lines, {expected} entries were announced");
    }
    Ok(())
}

/// Light and dark, as the system has it and as one chooses; and the zone.
pub(super) async fn preferences(stage: &Stage) -> Result<()> {
    let browser = &stage.browser;
    let ground = "return getComputedStyle(document.body).backgroundColor";
    browser.open("/").await?;
    browser.prefer("light").await?;
    let light = browser.run(ground).await?;
    browser.prefer("dark").await?;
    let dark = browser.run(ground).await?;
    ensure!(light != dark, "both are {light}");
    browser.click(".menu summary").await?;
    browser.click("[name=theme][value=light]").await?;
    browser.find("[data-theme=light]").await?;
    ensure!(browser.run(ground).await? == light, "a choice goes before the system");
    browser.click(".menu summary").await?;
    browser.click("[name=theme][value=system]").await?;
    browser.find("html:not([data-theme])").await?;
    browser.prefer("light").await?;

    browser.live_in("Asia/Kolkata").await?;
    browser.open("/entries/").await?;
    browser.open("/").await?;
    let clock = "const t = document.querySelector('.row time'); return [t.textContent, new Date(t.dateTime).toLocaleTimeString('en-GB'), t.dateTime.slice(11, 19)]";
    let utc: Vec<String> = serde_json::from_value(browser.run(clock).await?)?;
    ensure!(utc[0] == utc[2], "it is UTC at first: {utc:?}");
    browser.click(".menu summary").await?;
    browser.click("[data-zone]").await?;
    browser.until("the page is in the zone", "return document.querySelector('.menu summary').textContent.includes('Kolkata') || document.querySelector('.menu summary').textContent.includes('Calcutta')").await?;
    let local: Vec<String> = serde_json::from_value(browser.run(clock).await?)?;
    ensure!(local[0] == local[1], "times are those of the browser: {local:?}");
    browser.click(".menu summary").await?;
    browser.click("[name=zone]").await?;
    browser
        .until("the page is in UTC", "return document.querySelector('.menu summary').textContent.includes('UTC')")
        .await?;
    browser.watched().await.map(drop)
}

/// From the start to an entry without a mouse.
pub(super) async fn keyboard(stage: &Stage) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/").await?;
    browser.press(TAB).await?;
    ensure!(
        browser.run("return document.activeElement.className").await? == "skip",
        "the first stop is the way to the content"
    );
    browser.press(ENTER).await?;
    ensure!(browser.run("return document.activeElement.id").await? == "main", "which leads there");
    browser.press("/").await?;
    browser.press(&format!("type:tunnel {ESCAPE}{ENTER}")).await?;
    browser.until("it is searched", "return location.search.includes('tunnel')").await?;
    let (mut stops, mut seen) = (0, false);
    while !seen {
        browser.press(TAB).await?;
        stops += 1;
        ensure!(stops < 120, "no entry is reached within {stops} stops");
        let outline = browser.run("const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0").await?;
        let tag = browser.run("return document.activeElement.outerHTML.slice(0, 80)").await?;
        ensure!(outline == Value::Bool(true), "one sees where one is: {tag}");
        seen = browser.run("return document.activeElement.matches('a.when')").await? == Value::Bool(true);
    }
    browser.press(ENTER).await?;
    browser.find(".entry").await.map(drop)
}

/// Every page is usable by everybody, in both colours, on a phone, and asks nobody else for anything.
pub(super) async fn every_page(stage: &Stage, axe: &str) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/").await?;
    let id = ids(browser).await?.into_iter().next().context("there is an entry")?;
    let workspace = format!("/workspaces/{}", stage.directory.workspaces[0].id);
    let user = format!("/users/{}", stage.directory.users[0].id);
    let entry = format!("/entries/{id}");
    let pages = [
        "/",
        "/?q=statos%3Ax",
        "/?q=type%3Atunnel&range=24h",
        &entry,
        &workspace,
        &user,
        "/picture?range=24h",
        "/record",
        "/export",
        "/signin",
        "/entries/none",
    ];
    browser.watched().await?;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await?;
        for (width, height) in [(1280, 900), (360, 740)] {
            browser.size(width, height).await?;
            for page in pages {
                browser.open(page).await?;
                browser.run("document.querySelectorAll('details').forEach((details) => (details.open = !details.dataset.dismiss))").await?;
                let wide = browser.run("return document.documentElement.scrollWidth").await?;
                ensure!(
                    wide.as_u64().is_some_and(|wide| wide <= width.into()),
                    "{page} is {wide} wide on a screen of {width}"
                );
                browser.run(axe).await?;
                let found = browser.run_async(AXE).await?;
                let found = found.as_array().context("axe gives a list")?;
                ensure!(found.is_empty(), "{page}, {scheme}, {width} wide: {}", serde_json::to_string_pretty(found)?);
            }
        }
    }
    browser.size(1280, 900).await?;
    browser.prefer("light").await?;
    let watched = browser.watched().await?;
    // The browser notes an answer of 400 or 404 as an error, which is what two of the pages are.
    let complaints: Vec<_> =
        watched.complaints.iter().filter(|text| !text.contains("statos") && !text.contains("/entries/none")).collect();
    ensure!(complaints.is_empty(), "{complaints:?}");
    let base = format!("http://{}/", stage.services.query);
    for request in &watched.requests {
        ensure!(request.starts_with(&base) || request.starts_with("data:"), "a page asked for {request}");
    }
    ensure!(watched.requests.len() > pages.len(), "requests are seen");
    Ok(())
}

const AXE: &str = "
const done = arguments[arguments.length - 1];
axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then(
  (found) => done(found.violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.slice(0, 3).map((node) => [node.html, node.failureSummary]) }))),
  (error) => done([String(error)]),
);";

/// What the first page costs somebody who was never here.
pub(super) async fn weight(stage: &Stage) -> Result<()> {
    let browser = &stage.browser;
    browser.forget().await?;
    browser.watched().await?;
    browser.open("/").await?;
    browser.until("the page is complete", "return document.readyState === 'complete'").await?;
    let bytes = browser.watched().await?.bytes;
    ensure!(bytes > 1024.0 && bytes < 100.0 * 1024.0, "{bytes} bytes were transferred");
    println!("ok: the first page takes {:.0} KiB", bytes / 1024.0);
    Ok(())
}

/// Signs out, and is out.
pub(super) async fn signs_out(stage: &Stage) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/record").await?;
    browser.click(".menu summary").await?;
    browser.click("form[action='/signout'] button").await?;
    browser.find("#token").await?;
    browser.open("/record").await?;
    ensure!(browser.here().await?.starts_with("/signin"), "whoever signed out is out");
    Ok(())
}
