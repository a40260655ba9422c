//! Watching what happens.

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use connlog_model::identity::connection_row_id;
use connlog_proto::v1;
use connlog_proto::v1::connection_log_client::ConnectionLogClient;
use uuid::Uuid;

use crate::dashboard::Stage;
use crate::demo::{authorized, timestamp};

/// Reports an event as the agent of the workspace that nobody uses.
async fn report(stage: &Stage, id: Uuid, action: v1::Action) -> Result<()> {
    let connection = v1::Connection {
        id: id.as_bytes().to_vec(),
        action: action.into(),
        timestamp: Some(timestamp(Utc::now())),
        ip: "192.0.2.7".to_owned(),
        app_name: "windsurf".to_owned(),
        status_code: Some(7),
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
pub(in crate::dashboard) async fn live(stage: &mut Stage) -> Result<()> {
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
    Ok(())
}
