//! A headless Chromium, driven by its own driver.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use connlog_testkit::process::{Process, free_address};
use fantoccini::elements::Element;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(30);

/// A browser with a profile of its own, on a site.
pub(crate) struct Browser {
    client: Client,
    base: String,
    downloads: TempDir,
    _profile: TempDir,
    _driver: Process,
}

/// What the browser wrote down while pages were looked at.
pub(crate) struct Watched {
    /// What scripts, or the policy of the page, complained about.
    pub(crate) complaints: Vec<String>,
    /// Addresses that were asked for.
    pub(crate) requests: Vec<String>,
    /// Bytes that came over the network, with their headers.
    pub(crate) bytes: f64,
}

impl Browser {
    /// Starts one for the site at `base`.
    pub(crate) async fn start(base: &str) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", address.port())).arg("--log-level=OFF");
        command.stdout(std::process::Stdio::null());
        let mut driver = Process::spawn("chromedriver", &command, "TERM")?;
        driver.wait_until_listening(address, PATIENCE)?;
        let (profile, downloads) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let user_data = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
            "--window-size=1280,900",
            &user_data,
        ];
        let capabilities = json!({
            "goog:chromeOptions": {
                "args": arguments,
                "prefs": { "download.default_directory": downloads.path(), "download.prompt_for_download": false },
            },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { bail!("capabilities are an object") };
        let capabilities: Capabilities = capabilities.into_iter().collect();
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://{address}"))
            .await
            .context("the browser does not start")?;
        Ok(Self { client, base: base.to_owned(), downloads, _profile: profile, _driver: driver })
    }

    /// Ends it.
    pub(crate) async fn stop(self) -> Result<()> {
        Ok(self.client.close().await?)
    }

    /// Opens a page of the site.
    pub(crate) async fn open(&self, path: &str) -> Result<()> {
        Ok(self.client.goto(&format!("{}{path}", self.base)).await?)
    }

    /// Where it is: path and query.
    pub(crate) async fn here(&self) -> Result<String> {
        let url = self.client.current_url().await?;
        Ok(match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        })
    }

    pub(crate) async fn back(&self) -> Result<()> {
        Ok(self.client.back().await?)
    }

    /// The first element that `css` selects, as soon as there is one.
    pub(crate) async fn find(&self, css: &str) -> Result<Element> {
        let wait = self.client.wait().at_most(PATIENCE).every(PAUSE);
        wait.for_element(Locator::Css(css)).await.with_context(|| format!("there is no {css}"))
    }

    /// How many elements `css` selects.
    pub(crate) async fn count(&self, css: &str) -> Result<usize> {
        Ok(self.client.find_all(Locator::Css(css)).await?.len())
    }

    pub(crate) async fn text(&self, css: &str) -> Result<String> {
        Ok(self.find(css).await?.text().await?)
    }

    pub(crate) async fn click(&self, css: &str) -> Result<()> {
        self.find(css).await?.click().await.with_context(|| format!("{css} cannot be clicked"))
    }

    /// Types into a field, key by key.
    pub(crate) async fn fill(&self, css: &str, text: &str) -> Result<()> {
        let field = self.find(css).await?;
        field.clear().await?;
        Ok(field.send_keys(text).await?)
    }

    /// Presses keys on whatever has the focus.
    pub(crate) async fn press(&self, keys: &str) -> Result<()> {
        Ok(self.client.active_element().await?.send_keys(keys).await?)
    }

    /// Runs a script of the test in the page, and returns what it returns.
    pub(crate) async fn run(&self, script: &str) -> Result<Value> {
        Ok(self.client.execute(script, Vec::new()).await?)
    }

    /// The same for one that calls back.
    pub(crate) async fn run_async(&self, script: &str) -> Result<Value> {
        Ok(self.client.execute_async(script, Vec::new()).await?)
    }

    /// Waits until `script` returns true.
    pub(crate) async fn until(&self, what: &str, script: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.client.execute(script, Vec::new()).await {
                Ok(Value::Bool(true)) => return Ok(()),
                // The page may be on its way to another one.
                Ok(_) | Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                outcome => bail!("{what}: did not happen ({outcome:?}) at {}", self.here().await?),
            }
        }
    }

    /// Presses, moves and releases the mouse, in pixels of the view.
    pub(crate) async fn drag(&self, from: (f64, f64), to: (f64, f64)) -> Result<()> {
        for (kind, (x, y)) in [
            ("mousePressed", from),
            ("mouseMoved", (f64::midpoint(from.0, to.0), from.1)),
            ("mouseMoved", to),
            ("mouseReleased", to),
        ] {
            let buttons = u8::from(kind != "mouseReleased");
            let event = json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1 });
            self.devtools("Input.dispatchMouseEvent", event).await?;
        }
        Ok(())
    }

    /// The size of the view, as a phone or a desk has it.
    pub(crate) async fn size(&self, width: u32, height: u32) -> Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await.map(drop)
    }

    /// Whether the system prefers `light` or `dark`.
    pub(crate) async fn prefer(&self, scheme: &str) -> Result<()> {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await.map(drop)
    }

    /// Forgets what it has seen of other pages.
    pub(crate) async fn forget(&self) -> Result<()> {
        self.devtools("Network.clearBrowserCache", json!({})).await.map(drop)
    }

    /// The time zone of the browser's system.
    pub(crate) async fn live_in(&self, zone: &str) -> Result<()> {
        self.devtools("Emulation.setTimezoneOverride", json!({ "timezoneId": zone })).await.map(drop)
    }

    /// A picture of what is in view.
    pub(crate) async fn picture(&self, file: &Path) -> Result<()> {
        Ok(std::fs::write(file, self.client.screenshot().await?)?)
    }

    /// A file that was downloaded, once it is whole.
    pub(crate) async fn downloaded(&self, name: &str) -> Result<String> {
        let file = self.downloads.path().join(name);
        let deadline = Instant::now() + PATIENCE;
        while !file.exists() {
            ensure!(Instant::now() < deadline, "{name} was not downloaded");
            tokio::time::sleep(PAUSE).await;
        }
        Ok(std::fs::read_to_string(file)?)
    }

    /// What was written down since the last time.
    pub(crate) async fn watched(&self) -> Result<Watched> {
        let mut watched = Watched { complaints: Vec::new(), requests: Vec::new(), bytes: 0.0 };
        for entry in self.log("browser").await? {
            let text = entry["message"].as_str().unwrap_or_default();
            if entry["level"] == "SEVERE" || entry["level"] == "WARNING" {
                watched.complaints.push(text.to_owned());
            }
        }
        for entry in self.log("performance").await? {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap_or("{}"))?;
            let (method, params) = (&message["message"]["method"], &message["message"]["params"]);
            if method == "Network.requestWillBeSent" {
                watched.requests.extend(params["request"]["url"].as_str().map(str::to_owned));
            }
            if method == "Network.loadingFinished" {
                watched.bytes += params["encodedDataLength"].as_f64().unwrap_or(0.0);
            }
        }
        Ok(watched)
    }

    async fn log(&self, kind: &'static str) -> Result<Vec<Value>> {
        let answer = self.client.issue_cmd(Extension { path: "se/log", body: json!({ "type": kind }) }).await?;
        answer.as_array().cloned().context("a log is a list")
    }

    async fn devtools(&self, command: &str, params: Value) -> Result<Value> {
        let body = json!({ "cmd": command, "params": params });
        Ok(self.client.issue_cmd(Extension { path: "goog/cdp/execute", body }).await?)
    }
}

/// What Chromium's driver can do beyond the standard.
#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}
