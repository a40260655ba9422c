//! What somebody does at the dashboard, one thing a function.

pub(super) mod everywhere;
pub(super) mod live;
pub(super) mod reading;
pub(super) mod search;
pub(super) mod session;

use anyhow::{Result, ensure};

use super::browser::Browser;
use crate::demo::Api;

const ENTER: &str = "\u{e007}";
const TAB: &str = "\u{e004}";
const DOWN: &str = "\u{e015}";
const ESCAPE: &str = "\u{e00c}";

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

async fn ids(browser: &Browser) -> Result<Vec<String>> {
    let ids = browser.run("return [...document.querySelectorAll('[data-id]')].map((row) => row.dataset.id)").await?;
    Ok(serde_json::from_value(ids)?)
}
