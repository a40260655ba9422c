//! Coming and going, and what one likes.

use anyhow::{Result, ensure};

use super::ENTER;
use crate::dashboard::Stage;

/// Comes to a page without a session, gets the token wrong, and then right.
pub(in crate::dashboard) async fn signs_in(stage: &Stage) -> Result<()> {
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
    Ok(())
}

/// Signs out, and is out.
pub(in crate::dashboard) async fn signs_out(stage: &Stage) -> Result<()> {
    let browser = &stage.browser;
    browser.open("/record").await?;
    browser.click(".menu summary").await?;
    browser.click("form[action='/signout'] button").await?;
    browser.find("#token").await?;
    browser.open("/record").await?;
    ensure!(browser.here().await?.starts_with("/signin"), "whoever signed out is out");
    Ok(())
}

/// Light and dark, as the system has it and as one chooses; and the zone.
pub(in crate::dashboard) async fn preferences(stage: &Stage) -> Result<()> {
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
    Ok(())
}
