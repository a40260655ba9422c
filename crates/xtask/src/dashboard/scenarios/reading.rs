//! Looking closer: an entry, a workspace, a user, an export; without a mouse, too.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{ENTER, ESCAPE, TAB, ids};
use crate::dashboard::Stage;
use crate::demo::Api;

/// Opens an entry, and looks for others like it.
pub(in crate::dashboard) async fn entry(stage: &Stage) -> Result<()> {
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

/// Exports in every format.
pub(in crate::dashboard) async fn export(stage: &Stage, api: &Api) -> Result<()> {
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

/// From the start to an entry without a mouse.
pub(in crate::dashboard) async fn keyboard(stage: &Stage) -> Result<()> {
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
