//! The dashboard in a real browser, on the demo's services and traffic: `cargo xtask dashboard` does what somebody does there and
//! checks what they see; `cargo xtask screenshots` makes the pictures of the README.

mod browser;
mod scenarios;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use connlog_testkit::postgres::target_dir;

use self::browser::Browser;
use self::scenarios::{everywhere, live, reading, search, session};
use crate::demo::{Api, Directory, Ledger, Services, Traffic, services};
use crate::install;

/// How long traffic runs before anybody looks.
const TRAFFIC: Duration = Duration::from_secs(4);

/// What a look at the dashboard works with.
struct Stage {
    services: Services,
    directory: Directory,
    browser: Browser,
}

/// Does what somebody does at the dashboard, and checks what they see.
pub(crate) fn check() -> Result<()> {
    install::browser()?;
    let axe = std::fs::read_to_string(install::npm_package(&target_dir(), "axe-core", "4.14.1")?.join("axe.min.js"))?;
    staged(&async |stage: &mut Stage| {
        let api = Api::new(stage.services.query, stage.services.auditor_token.clone());
        session::signs_in(stage).await.context("signing in")?;
        everywhere::undisturbed(stage, "signing in").await?;
        search::filters(stage, &api).await.context("filters")?;
        everywhere::undisturbed(stage, "filters").await?;
        search::completion(stage, &api).await.context("completion")?;
        everywhere::undisturbed(stage, "completion").await?;
        search::bad_query(stage).await.context("a bad query")?;
        everywhere::undisturbed(stage, "a bad query").await?;
        search::paging(stage, &api).await.context("paging")?;
        everywhere::undisturbed(stage, "paging").await?;
        reading::entry(stage).await.context("an entry")?;
        everywhere::undisturbed(stage, "an entry, a workspace, a user").await?;
        search::brush(stage, &api).await.context("the brush")?;
        everywhere::undisturbed(stage, "the brush").await?;
        reading::export(stage, &api).await.context("exports")?;
        everywhere::undisturbed(stage, "exports").await?;
        session::preferences(stage).await.context("colours and zone")?;
        everywhere::undisturbed(stage, "colours and zone").await?;
        reading::keyboard(stage).await.context("the keyboard")?;
        everywhere::undisturbed(stage, "the keyboard").await?;
        everywhere::weight(stage).await.context("the weight of the first page")?;
        everywhere::every_page(stage, &axe).await.context("every page")?;
        everywhere::undisturbed(stage, "every page, in both colours, on a phone, by axe").await?;
        live::live(stage).await.context("live")?;
        everywhere::undisturbed(stage, "live").await?;
        session::signs_out(stage).await.context("signing out")?;
        everywhere::undisturbed(stage, "signing out").await?;
        Ok(())
    })
}

/// Rounds of a measurement.
const ROUNDS: usize = 15;

/// Opens the first page again and again, each time after the API call that it makes, and prints what both took.
pub(crate) fn page_time(url: &str, token: &str) -> Result<()> {
    install::browser()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let browser = Browser::start(url).await?;
        browser.open("/signin").await?;
        browser.fill("#token", token).await?;
        browser.click("form.signin button").await?;
        browser.find("[data-days]").await?;
        let http = reqwest::Client::new();
        let (mut calls, mut pages) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let call = http.get(format!("{url}/api/v2/connectionlog?limit=25")).header("Coder-Session-Token", token);
            call.send().await?.error_for_status()?.bytes().await?;
            calls.push(began.elapsed().as_secs_f64() * 1000.0);
            browser.open("/").await?;
            let loaded = "const n = performance.getEntriesByType('navigation')[0]; return n.loadEventEnd > 0 ? n.loadEventEnd : null";
            browser.until("the page is complete", "return performance.getEntriesByType('navigation')[0].loadEventEnd > 0").await?;
            pages.push(browser.run(loaded).await?.as_f64().context("a time")?);
        }
        browser.stop().await?;
        calls.sort_by(f64::total_cmp);
        pages.sort_by(f64::total_cmp);
        let (call, page) = (calls[ROUNDS / 2], pages[ROUNDS / 2]);
        println!("median of {ROUNDS}: the call {call:.1} ms, the page complete in the browser {page:.1} ms; ratio {:.1}", page / call);
        println!("slowest: the call {:.1} ms, the page {:.1} ms", calls[ROUNDS - 1], pages[ROUNDS - 1]);
        Ok(())
    })
}

/// Makes the pictures of the README.
pub(crate) fn screenshots() -> Result<()> {
    install::browser()?;
    staged(&async |stage: &mut Stage| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../query/screenshots");
        std::fs::create_dir_all(&folder)?;
        let browser = &stage.browser;
        browser.open("/signin").await?;
        browser.fill("#token", &stage.services.auditor_token).await?;
        browser.click("form.signin button").await?;
        browser.find("[data-days]").await?;
        let workspace = format!("/workspaces/{}", stage.directory.workspaces[0].id);
        for (name, scheme, path) in [
            ("log", "light", "/?range=24h"),
            ("picture", "dark", "/picture?q=method%3Assh&range=24h"),
            ("workspace", "light", workspace.as_str()),
            ("record", "light", "/record"),
        ] {
            browser.prefer(scheme).await?;
            browser.size(1200, 860).await?;
            browser.open(path).await?;
            browser.picture(&folder.join(format!("{name}.png"))).await?;
        }
        println!("the pictures are in {}", folder.display());
        Ok(())
    })
}

/// Starts everything, lets it work for a while, looks, and stops everything.
fn staged(look: &impl AsyncFn(&mut Stage) -> Result<()>) -> Result<()> {
    install::postgresql()?;
    services::build()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let directory = Directory::sample();
        let services = Services::start(&directory)?;
        let ledger = Ledger::default();
        let traffic = Traffic::start(&directory, &services, &ledger);
        tokio::time::sleep(TRAFFIC).await;
        traffic.quiesce().await?;
        let browser = Browser::start(&format!("http://{}", services.query)).await?;
        let mut stage = Stage { services, directory, browser };
        let outcome = look(&mut stage).await;
        stage.browser.stop().await?;
        traffic.stop().await;
        stage.services.stop()?;
        outcome
    })
}
