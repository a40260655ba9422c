//! What holds on every page.

use anyhow::{Context as _, Result, ensure};

use super::ids;
use crate::dashboard::Stage;

/// Every page is usable by everybody, in both colours, on a phone, and asks nobody else for anything.
pub(in crate::dashboard) async fn every_page(stage: &Stage, axe: &str) -> Result<()> {
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
    Ok(())
}

/// Nothing that was done so far made a script fail, went against the policy of a page, or asked anybody else for anything.
pub(in crate::dashboard) async fn undisturbed(stage: &Stage, what: &str) -> Result<()> {
    let watched = stage.browser.watched().await?;
    // That an answer was an error, or none came, the browser notes by itself; some of the checks are about that.
    let network = ["Failed to load resource", "net::ERR_"];
    let complaints: Vec<_> =
        watched.complaints.iter().filter(|text| !network.iter().any(|note| text.contains(note))).collect();
    ensure!(complaints.is_empty(), "{what}: {complaints:?}");
    let base = format!("http://{}/", stage.services.query);
    // Anything else, such as data: and the browser's own pages, needs no network.
    let sent = watched.requests.iter().filter(|request| request.starts_with("http") || request.starts_with("ws"));
    for request in sent {
        ensure!(request.starts_with(&base), "{what}: a page asked for {request}");
    }
    ensure!(!watched.requests.is_empty(), "{what}: requests are seen");
    println!("ok: {what}");
    Ok(())
}

const AXE: &str = "
const done = arguments[arguments.length - 1];
axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then(
  (found) => done(found.violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.slice(0, 3).map((node) => [node.html, node.failureSummary]) }))),
  (error) => done([String(error)]),
);";

/// What the first page costs somebody who was never here.
pub(in crate::dashboard) async fn weight(stage: &Stage) -> Result<()> {
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
