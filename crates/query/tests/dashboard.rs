//! The pages of the dashboard as they are sent: what a browser without scripts has, and what nobody may get. What moves is used
//! in a real browser by `cargo xtask dashboard`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_testkit::fixtures::{self, Site, now};
use connlog_testkit::stage::write;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use connlog_model::clock::{Timestamp, rfc3339, truncate_to_micros};
use connlog_model::event::{Action, AgentEvent, Client, Event, Outcome, Source, WebEvent};
use connlog_model::identity::{AgentIdentity, Workspace};
use connlog_model::method::Method;
use connlog_model::role::Role;
use connlog_store::directory::DirectoryEntry;
use connlog_store::write::Batch;
use connlog_store::{Hole, LostRecord, RejectedRecord};
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, LOCATION, SET_COOKIE, VARY};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use support::Served;
use uuid::Uuid;

struct Pages {
    served: Served,
    http: reqwest::Client,
}

impl Deref for Pages {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.served
    }
}

impl Pages {
    async fn new() -> Self {
        let served = support::stage(&["--token-cache", "1ms"]).await;
        let http = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
        Self { served, http }
    }

    async fn answer(&self, token: &str, path: &str, cookies: &str) -> Response {
        let request = self.http.get(format!("{}{path}", self.service.base));
        request.header("coder-session-token", token).header(COOKIE, cookies).send().await.unwrap()
    }

    async fn page(&self, path: &str) -> String {
        let response = self.answer(&self.auditor, path, "").await;
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        text
    }

    async fn post(&self, path: &str, form: &str, headers: &[(&'static str, &str)]) -> Response {
        let request = self.http.post(format!("{}{path}", self.service.base));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
    }

    async fn limited_to(&self, site: &Site) -> String {
        let organizations = Some(vec![site.agent.workspace.organization_id]);
        fixtures::api_token(&self.store, Role::Auditor, None, organizations, now()).await.unwrap()
    }
}

fn location(response: &Response) -> String {
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    response.headers()[LOCATION].to_str().unwrap().to_owned()
}

fn ended(agent: &Arc<AgentIdentity>, connection: u128, since: Timestamp, lasted: TimeDelta, code: i32) -> Event {
    let outcome = Outcome { code: Some(code), ..Outcome::default() };
    let action = Action::Disconnect { connected_at: Some(since), outcome };
    fixtures::agent_event(agent, connection, since + lasted, action)
}

fn lost(site: &Site, number: u128, time: Timestamp, cause: &str) -> LostRecord {
    LostRecord {
        id: Uuid::from_u128(number),
        recorded_at: time,
        organization_id: site.agent.workspace.organization_id,
        workspace_id: site.agent.workspace.workspace_id,
        agent_id: site.agent.agent_id,
        hole: Some(Hole { spool_id: Uuid::from_u128(5), first_seq: 1, last_seq: 7 }),
        events: 7,
        since: None,
        until: Some(time),
        cause: cause.to_owned(),
    }
}

/// A browser that is signed in.
struct Browser {
    /// `name=secret`.
    cookie: String,
}

impl Browser {
    async fn sign_in(stage: &Pages, token: &str) -> Self {
        let signed_in = stage.post("/signin", &format!("token={token}"), &[("user-agent", "Lynx/2.9")]).await;
        assert_eq!(location(&signed_in), "/");
        Self { cookie: pair(&signed_in) }
    }

    async fn get(&self, stage: &Pages, path: &str) -> Response {
        stage.http.get(format!("{}{path}", stage.service.base)).header(COOKIE, &self.cookie).send().await.unwrap()
    }

    async fn is_in(&self, stage: &Pages) -> bool {
        // What was remembered of it is forgotten meanwhile.
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.get(stage, "/record").await.status() == StatusCode::OK
    }
}

/// The cookie that an answer sets, without its attributes.
fn pair(response: &Response) -> String {
    let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
    cookie.split_once(';').unwrap().0.to_owned()
}

async fn set(stage: &Pages, columns: &str) {
    update(stage, &format!("UPDATE browser_sessions SET {columns}")).await;
}

async fn update(stage: &Pages, sql: &str) {
    stage.database.client().await.unwrap().batch_execute(sql).await.unwrap();
}

/// Without this, whoever takes the cookie has the token, for as long as it lives.
#[tokio::test]
async fn a_session_has_a_secret_of_its_own_and_ends_with_the_token() {
    let stage = Pages::new().await;
    let signed_out = stage.http.get(format!("{}/record?x=y", stage.service.base)).send().await.unwrap();
    assert_eq!(location(&signed_out), "/signin?next=%2Frecord%3Fx%3Dy");
    let form = format!("token={}&next=%2Frecord", stage.auditor);
    let signed_in = stage.post("/signin", &form, &[("sec-fetch-site", "same-origin")]).await;
    assert_eq!(location(&signed_in), "/record");
    let cookie = signed_in.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["connlog_session=", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=604"] {
        assert!(cookie.contains(part), "{part} is not in {cookie}");
    }
    assert!(!cookie.contains("Secure"), "without TLS a browser would not send it back");
    assert!(!cookie.contains(&stage.auditor), "the token stays out of the browser");
    let by_tls = [("x-forwarded-proto", "https")];
    let behind_tls = stage.post("/signin", &form, &by_tls).await;
    let secure = behind_tls.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(secure.starts_with("__Host-connlog_session=") && secure.ends_with("; Secure"), "{secure}");
    let secure = Browser { cookie: pair(&behind_tls) };
    assert!(!secure.is_in(&stage).await, "a cookie of TLS does not go without");

    let browser = Browser { cookie: pair(&signed_in) };
    assert!(browser.is_in(&stage).await);
    let secret = browser.cookie.split_once('=').unwrap().1;
    assert_eq!(location(&stage.answer(secret, "/record", "").await), "/signin?next=%2Frecord", "it is no token");
    let client = stage.database.client().await.unwrap();
    client.execute("UPDATE api_tokens SET revoked_at = now()", &[]).await.unwrap();
    assert!(!browser.is_in(&stage).await);
}

#[tokio::test]
async fn signing_out_ends_the_session_and_no_other_and_not_the_token() {
    let stage = Pages::new().await;
    let (one, other) = (Browser::sign_in(&stage, &stage.auditor).await, Browser::sign_in(&stage, &stage.auditor).await);
    let cookie = [("cookie", one.cookie.as_str()), ("sec-fetch-site", "same-origin")];
    let signed_out = stage.post("/signout", "", &cookie).await;
    assert_eq!((location(&signed_out), pair(&signed_out)), ("/signin".to_owned(), "connlog_session=".to_owned()));
    assert!(!one.is_in(&stage).await);
    assert!(other.is_in(&stage).await);
    stage.page("/record").await;
    // Signing in again leaves nothing of the session before.
    let form = format!("token={}", stage.auditor);
    let again = stage.post("/signin", &form, &[("cookie", &other.cookie)]).await;
    assert!(!other.is_in(&stage).await);
    assert!(Browser { cookie: pair(&again) }.is_in(&stage).await);
}

#[tokio::test]
async fn a_session_ends_without_a_use_and_in_any_case() {
    let stage = Pages::new().await;
    for (columns, is_in) in [
        ("seen_at = now() - interval '7 hours'", true),
        ("seen_at = now() - interval '9 hours'", false),
        ("expires_at = now() + interval '1 hour'", true),
        ("expires_at = now()", false),
    ] {
        let browser = Browser::sign_in(&stage, &stage.auditor).await;
        set(&stage, columns).await;
        assert_eq!(browser.is_in(&stage).await, is_in, "{columns}");
    }
    // A request notes the use.
    let browser = Browser::sign_in(&stage, &stage.auditor).await;
    set(&stage, "seen_at = now() - interval '7 hours'").await;
    assert!(browser.is_in(&stage).await);
    let client = stage.database.client().await.unwrap();
    let recent = "SELECT count(*) FROM browser_sessions WHERE seen_at > now() - interval '1 minute'";
    assert_eq!(client.query_one(recent, &[]).await.unwrap().get::<_, i64>(0), 1);
}

/// A page, and the browser with the secret that it gave, if it gave one.
async fn renewed(stage: &Pages, browser: &Browser) -> Option<Browser> {
    tokio::time::sleep(Duration::from_millis(5)).await;
    let answer = browser.get(stage, "/record").await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.headers().contains_key(SET_COOKIE).then(|| Browser { cookie: pair(&answer) })
}

/// As if so much time had gone by for the secrets of sessions.
async fn wait(stage: &Pages, minutes: u32) {
    let sql = format!(
        "UPDATE browser_secrets SET made_at = made_at - interval '{minutes} minutes', seen_at = seen_at - interval '{minutes} minutes'"
    );
    update(stage, &sql).await;
}

/// Without this, a copy of a cookie is good for as long as the session. With no grace, two requests at once, or an answer that is
/// lost, sign somebody out.
#[tokio::test]
async fn the_secret_of_a_session_is_renewed_and_a_copy_of_the_earlier_one_ends_it() {
    let stage = Pages::new().await;
    let first = Browser::sign_in(&stage, &stage.auditor).await;
    assert!(renewed(&stage, &first).await.is_none(), "it is new");
    wait(&stage, 16).await;
    let _lost = renewed(&stage, &first).await.unwrap();
    assert!(renewed(&stage, &first).await.is_none(), "another request that was under way");
    // The answer was lost: the browser comes with the first one, and gets another.
    wait(&stage, 2).await;
    let second = renewed(&stage, &first).await.unwrap();
    assert!(second.is_in(&stage).await);
    assert!(first.is_in(&stage).await, "for a minute");
    wait(&stage, 2).await;
    assert!(second.is_in(&stage).await);
    assert!(!first.is_in(&stage).await, "somebody has a copy");
    assert!(!second.is_in(&stage).await, "nobody knows which browser is the user's");
}

/// Without this, somebody with a copy of the earlier secret, who comes while the browser rests after a renewal, takes the session over.
#[tokio::test]
async fn a_copy_that_is_renewed_before_the_browser_comes_back_ends_the_session() {
    let stage = Pages::new().await;
    let browser = Browser::sign_in(&stage, &stage.auditor).await;
    let copy = Browser { cookie: browser.cookie.clone() };
    wait(&stage, 16).await;
    let browser = renewed(&stage, &browser).await.unwrap();
    wait(&stage, 2).await;
    let copy = renewed(&stage, &copy).await.unwrap();
    assert!(copy.is_in(&stage).await);
    wait(&stage, 2).await;
    assert!(!browser.is_in(&stage).await);
    assert!(!copy.is_in(&stage).await);
}

/// Without this, a cookie that is taken away from the browser is still good for whoever has a copy, and nobody knows.
#[tokio::test]
async fn signing_out_says_so_if_it_cannot_be_done() {
    let stage = Pages::new().await;
    let browser = Browser::sign_in(&stage, &stage.auditor).await;
    update(&stage, "ALTER TABLE browser_sessions RENAME TO elsewhere").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let failed = stage.post("/signout", "", &[("cookie", &browser.cookie)]).await;
    assert!(failed.status().is_server_error(), "{}", failed.status());
    update(&stage, "ALTER TABLE elsewhere RENAME TO browser_sessions").await;
    assert!(browser.is_in(&stage).await);
    // A token beside the cookie does not keep the session.
    let beside = [("cookie", browser.cookie.as_str()), ("coder-session-token", stage.auditor.as_str())];
    assert_eq!(location(&stage.post("/signout", "", &beside).await), "/signin");
    assert!(!browser.is_in(&stage).await);
}

#[tokio::test]
async fn a_session_reaches_what_its_token_reaches_and_falls_back_to_coders_cookie() {
    let stage = Pages::new().await;
    let (ours, theirs) = (fixtures::site(1, 1), fixtures::site(2, 2));
    for site in [&ours, &theirs] {
        write(&stage.store, vec![fixtures::web(&site.agent, 1, now(), Method::Tunnel)]).await;
    }
    let token = stage.limited_to(&ours).await;
    let browser = Browser::sign_in(&stage, &token).await;
    let count = async |cookie: &str| {
        let request = stage.http.get(format!("{}/api/v2/connectionlog", stage.service.base)).header(COOKIE, cookie);
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let page: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        (status, page["count"].as_i64())
    };
    assert_eq!(count(&browser.cookie).await, (StatusCode::OK, Some(1)));
    set(&stage, "expires_at = now()").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(count(&browser.cookie).await, (StatusCode::UNAUTHORIZED, None));
    let both = format!("{}; coder_session_token={}", browser.cookie, stage.auditor);
    assert_eq!(count(&both).await, (StatusCode::OK, Some(2)));
}

#[tokio::test]
async fn a_token_has_a_hundred_sessions_and_the_oldest_gives_way() {
    let stage = Pages::new().await;
    let oldest = Browser::sign_in(&stage, &stage.auditor).await;
    set(&stage, "seen_at = now() - interval '1 hour'").await;
    let newest = Browser::sign_in(&stage, &stage.auditor).await;
    let sql =
        "INSERT INTO browser_sessions SELECT gen_random_uuid(), token_id, started_at, now(), expires_at, ip, user_agent
        FROM browser_sessions, generate_series(1, 49)";
    update(&stage, sql).await;
    let _another = Browser::sign_in(&stage, &stage.auditor).await;
    assert!(!oldest.is_in(&stage).await);
    assert!(newest.is_in(&stage).await);
}

/// Without this, a live page goes on for whoever has it open, after the session was ended.
#[tokio::test]
async fn a_live_page_ends_with_its_session() {
    let stage = Pages::new().await;
    let browser = Browser::sign_in(&stage, &stage.auditor).await;
    let live = browser.get(&stage, "/live").await;
    assert_eq!(live.status(), StatusCode::OK);
    update(&stage, "DELETE FROM browser_sessions").await;
    let text = tokio::time::timeout(Duration::from_secs(30), live.text()).await.unwrap().unwrap();
    assert!(text.contains("the token is no longer valid"), "{text}");
}

#[tokio::test]
async fn sessions_are_listed_for_their_user_and_ended_by_nobody_else() {
    let stage = Pages::new().await;
    let (user, stranger) = (Uuid::from_u128(71), Uuid::from_u128(72));
    let token = async |user| fixtures::api_token(&stage.store, Role::Auditor, Some(user), None, now()).await.unwrap();
    let (token_one, token_other) = (token(user).await, token(user).await);
    let (one, other) = (Browser::sign_in(&stage, &token_one).await, Browser::sign_in(&stage, &token_other).await);
    let foreign = Browser::sign_in(&stage, &token(stranger).await).await;
    let list = async |browser: &Browser| browser.get(&stage, "/sessions").await.text().await.unwrap();
    let ids = |page: &str| -> Vec<String> {
        page.split("name=\"session\" value=\"").skip(1).map(|rest| rest[..36].to_owned()).collect()
    };
    let (of_user, of_stranger) = (list(&one).await, list(&foreign).await);
    assert_eq!((ids(&of_user).len(), ids(&of_stranger).len()), (2, 1));
    assert!(of_user.contains("Lynx/2.9") && of_user.contains("127.0.0.1") && of_user.matches("this one").count() == 1);

    let end = async |browser: &Browser, form: &str| {
        let headers = [("cookie", browser.cookie.as_str()), ("sec-fetch-site", "same-origin")];
        stage.post("/sessions/end", form, &headers).await
    };
    let session = format!("session={}", ids(&of_stranger)[0]);
    assert_eq!(location(&end(&one, &session).await), "/sessions");
    assert!(foreign.is_in(&stage).await, "a stranger's is out of reach");
    let elsewhere = [("cookie", one.cookie.as_str()), ("sec-fetch-site", "cross-site")];
    assert_eq!(stage.post("/sessions/end", "", &elsewhere).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(end(&one, "session=x").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(location(&end(&one, "").await), "/sessions");
    assert!(one.is_in(&stage).await && foreign.is_in(&stage).await);
    assert!(!other.is_in(&stage).await);
    let ended = end(&one, &format!("session={}", ids(&list(&one).await)[0])).await;
    assert_eq!((location(&ended), pair(&ended)), ("/signin".to_owned(), "connlog_session=".to_owned()));
    assert!(!one.is_in(&stage).await);
    // A browser sends Coder's cookie along with the forms of other sites: it is for reading.
    let coder = format!("coder_session_token={token_one}");
    assert_eq!(stage.post("/sessions/end", "", &[("cookie", &coder)]).await.status(), StatusCode::SEE_OTHER);
    assert!(foreign.is_in(&stage).await);
}

/// Without this, a proxy, or whoever sits down next, gets what was meant for somebody else.
#[tokio::test]
async fn what_depends_on_who_asks_is_kept_by_nobody() {
    let stage = Pages::new().await;
    let asset = stage.page("/record").await;
    let asset = asset.split("href=\"/assets/").nth(1).unwrap().split('"').next().unwrap();
    let get = async |path: &str, token: &str| {
        let request = stage.http.get(format!("{}{path}", stage.service.base)).header("coder-session-token", token);
        request.header("x-forwarded-proto", "https").send().await.unwrap()
    };
    for (path, token, status) in [
        ("/record", stage.auditor.as_str(), 200),
        ("/record", "wrong", 303),
        ("/nothing", "wrong", 404),
        ("/api/v2/connectionlog", &stage.auditor, 200),
        ("/api/v2/connectionlog", "wrong", 401),
        ("/api/v2/connectionlog/export", &stage.auditor, 200),
        ("/api/v2/connectionlog/tail", &stage.auditor, 200),
    ] {
        let answer = get(path, token).await;
        let headers = answer.headers();
        assert_eq!(
            (answer.status().as_u16(), headers[CACHE_CONTROL].to_str().unwrap()),
            (status, "no-store"),
            "{path}"
        );
        let vary: Vec<&str> = headers.get_all(VARY).iter().map(|value| value.to_str().unwrap()).collect();
        assert!(vary.contains(&"authorization, cookie, coder-session-token"), "{path}: {vary:?}");
        assert_eq!(&headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(&headers["strict-transport-security"], "max-age=31536000", "{path}");
    }
    let asset = get(&format!("/assets/{asset}"), "wrong").await;
    assert!(asset.headers()[CACHE_CONTROL].to_str().unwrap().starts_with("public"));
    let plain = stage.answer(&stage.auditor, "/record", "").await;
    assert_eq!(plain.headers().get("strict-transport-security"), None, "nothing that a browser could not keep to");
}

#[tokio::test]
async fn what_is_wrong_with_a_sign_in_is_said_and_other_sites_cannot_send_forms() {
    let stage = Pages::new().await;
    let reporter = fixtures::api_token(&stage.store, Role::Reporter, None, None, now()).await.unwrap();
    for (form, status, says) in [
        ("token=unknown".to_owned(), StatusCode::UNAUTHORIZED, "unknown, expired or revoked"),
        ("token=".to_owned(), StatusCode::UNAUTHORIZED, "That is no token"),
        ("token=a%3Bb%0Ac".to_owned(), StatusCode::UNAUTHORIZED, "That is no token"),
        (format!("token={reporter}"), StatusCode::FORBIDDEN, "role auditor or admin"),
    ] {
        let response = stage.post("/signin", &form, &[]).await;
        assert_eq!((response.status(), response.headers().get(SET_COOKIE)), (status, None), "{form}");
        assert!(response.text().await.unwrap().contains(says), "{form}");
    }
    let elsewhere = stage.post("/signin", &format!("token={}&next=//evil.example", stage.auditor), &[]).await;
    assert_eq!(location(&elsewhere), "/");
    for path in ["/signin", "/signout", "/preferences"] {
        for header in [("sec-fetch-site", "cross-site"), ("origin", "http://evil.example")] {
            let response = stage.post(path, &format!("token={}&zone=UTC", stage.auditor), &[header]).await;
            assert_eq!(
                (response.status(), response.headers().get(SET_COOKIE)),
                (StatusCode::FORBIDDEN, None),
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn every_page_keeps_to_itself() {
    let stage = Pages::new().await;
    for path in ["/", "/picture", "/record", "/export", "/signin", "/entries/none", "/complete?word=x"] {
        let response = stage.answer(&stage.auditor, path, "").await;
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "form-action 'self'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{path}: {policy}");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store", "{path}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    let page = stage.page("/").await;
    let asset = page.split('"').find(|part| part.ends_with("dashboard.css")).unwrap();
    let response = stage.answer("", asset, "").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers()[CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    assert!(!page.contains("<style") && !page.contains("style=") && !page.contains("onclick"), "nothing is inline");
}

/// Markup, text that turns around, and control characters.
const PLANTED: &str = "<img src=x onerror=alert(1)>\"'&\u{202e}gnp\u{7}\u{1b}[31m\u{2066}";

/// Plants it in all that users choose, of one user's workspace; returns the user and the agent.
async fn plant(stage: &Pages) -> (Uuid, Arc<AgentIdentity>, Uuid) {
    let time = now() - TimeDelta::hours(1);
    let plain = &stage.sites[0].agent;
    let agent = Arc::new(AgentIdentity {
        agent_id: plain.agent_id,
        agent_name: PLANTED.to_owned(),
        workspace: Workspace { workspace_name: PLANTED.to_owned(), ..plain.workspace.clone() },
    });
    let user = Uuid::from_u128(77);
    let entries = [
        DirectoryEntry::User {
            id: user,
            username: PLANTED.to_owned(),
            email: PLANTED.to_owned(),
            name: PLANTED.to_owned(),
            avatar_url: PLANTED.to_owned(),
            status: PLANTED.to_owned(),
            login_type: PLANTED.to_owned(),
            deleted: false,
        },
        DirectoryEntry::Organization {
            id: plain.workspace.organization_id,
            name: PLANTED.to_owned(),
            display_name: PLANTED.to_owned(),
            icon: PLANTED.to_owned(),
            deleted: false,
        },
        DirectoryEntry::Workspace {
            id: plain.workspace.workspace_id,
            organization_id: plain.workspace.organization_id,
            owner_id: user,
            name: PLANTED.to_owned(),
            deleted: false,
        },
    ];
    fixtures::import(&stage.store, &entries, now()).await.unwrap();
    let owned = Workspace { owner_id: user, ..agent.workspace.clone() };
    let agent = Arc::new(AgentIdentity { workspace: owned, ..(*agent).clone() });
    let client = Client {
        method: Some(Method::Ssh),
        app_name: Some(PLANTED.to_owned()),
        user_id: Some(user),
        ..Client::default()
    };
    let outcome = Outcome { reason: PLANTED.to_owned(), code: Some(1), ..Outcome::default() };
    let session = Event::Agent(AgentEvent {
        agent: Arc::clone(&agent),
        connection_id: Uuid::from_u128(1),
        boot: None,
        time,
        time_is_receipt: false,
        source: Source::Reporter,
        received_at: time,
        client,
        action: Action::Disconnect { connected_at: None, outcome },
    });
    let web = Event::Web(WebEvent {
        event_id: Uuid::from_u128(2),
        agent: Arc::new(AgentIdentity { agent_name: PLANTED.to_owned(), ..(*agent).clone() }),
        user_id: Some(user),
        method: Method::WorkspaceApp,
        time,
        received_at: time,
        ip: None,
        user_agent: PLANTED.to_owned(),
        slug_or_port: PLANTED.to_owned(),
        status_code: 200,
        connection_id: None,
    });
    let web_id = web.row_id();
    let rejected = RejectedRecord {
        id: Uuid::from_u128(3),
        received_at: time,
        organization_id: Some(plain.workspace.organization_id),
        workspace_id: Some(plain.workspace.workspace_id),
        agent_id: None,
        token_id: None,
        position: None,
        message_type: "connlog.v1.ReportedEvent",
        message: vec![1],
        field: "app_name".to_owned(),
        reason: PLANTED.to_owned(),
        events: 1,
        is_merged: false,
    };
    let batch = Batch {
        events: vec![session, web],
        lost: vec![lost(&stage.sites[0], 4, time, PLANTED)],
        rejected: vec![rejected],
        ..Batch::default()
    };
    stage.store.apply_batch(&batch, 1, now()).await.unwrap();
    (user, agent, web_id)
}

#[tokio::test]
async fn what_users_chose_is_shown_as_text_everywhere() {
    let stage = Pages::new().await;
    let (user, agent, web) = plant(&stage).await;
    let planted = percent_encoding(PLANTED);
    let row = agent.row_id(Uuid::from_u128(1));
    let pages = [
        "/".to_owned(),
        format!("/entries/{row}"),
        format!("/entries/{web}"),
        format!("/workspaces/{}", agent.workspace.workspace_id),
        format!("/users/{user}"),
        "/picture?range=24h".to_owned(),
        "/record".to_owned(),
        format!("/?q=reason%3A%22{}%22", percent_encoding("<img src=x onerror=alert(1)>\u{202e}")),
        format!("/?q=nokey%3A{planted}"),
        format!("/?range={planted}"),
        format!("/signin?next=/{}", percent_encoding("<img src=x onerror=alert(1)>")),
        "/complete?word=workspace:%3C".to_owned(),
        "/complete?word=username:%3C".to_owned(),
        "/complete?word=organization:%3C".to_owned(),
    ];
    for path in &pages {
        let text = stage.answer(&stage.auditor, path, "").await.text().await.unwrap();
        assert!(text.contains("onerror"), "{path} shows it: {text}");
        let is_page = text.contains("<html");
        assert!(!is_page || !text.contains("<img src=x"), "{path} has markup of a user");
        // What a search or a form brings back to its field is as it was; nothing else is.
        let without_fields: String =
            text.split("value=\"").map(|part| part.split_once('"').map_or(part, |(_, rest)| rest)).collect();
        for hidden in ['\u{202e}', '\u{2066}', '\u{7}', '\u{1b}'] {
            let found =
                without_fields.find(hidden).map(|at| without_fields[..at].chars().rev().take(80).collect::<String>());
            assert!(!is_page || found.is_none(), "{path} has {hidden:?} after (backwards) {found:?}");
        }
    }

    // Rows that arrive live.
    let mut live = stage.answer(&stage.auditor, "/live", "").await;
    write(&stage.store, vec![fixtures::connect(&agent, 9, now())]).await;
    let mut text = String::new();
    while !text.contains("event: connect") || !text.ends_with("\n\n") {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(30), live.chunk()).await.unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
    }
    assert!(text.contains("onerror") && !text.contains("<img") && !text.contains('\u{202e}'), "{text}");
}

fn percent_encoding(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02X}").unwrap();
        encoded
    })
}

#[tokio::test]
async fn who_sees_one_organization_sees_nothing_of_another() {
    let stage = Pages::new().await;
    let (ours, theirs) = (&stage.sites[0], &stage.sites[1]);
    let time = now() - TimeDelta::minutes(30);
    let events = stage.sites.iter().zip([10, 20]).flat_map(|(site, number)| {
        [fixtures::connect(&site.agent, number, time), fixtures::web(&site.agent, number + 1, time, Method::Tunnel)]
    });
    let batch = Batch {
        events: events.collect(),
        lost: vec![lost(ours, 1, time, "ours"), lost(theirs, 2, time, "secret")],
        ..Batch::default()
    };
    stage.store.apply_batch(&batch, 1, now()).await.unwrap();
    let token = stage.limited_to(ours).await;
    let entry = theirs.agent.row_id(Uuid::from_u128(20));
    for path in [
        "/",
        "/?q=status%3Aongoing",
        "/picture?range=24h",
        "/record",
        "/export",
        "/complete?word=organization:",
        "/complete?word=username:user",
        "/complete?word=workspace_owner:user",
        "/complete?word=workspace:work",
        &format!("/users/{}", ours.agent.workspace.owner_id),
    ] {
        let text = stage.answer(&token, path, "").await.text().await.unwrap();
        for name in ["org-2", "Organization 2", "user-2", "User 2", "workspace-2", "secret"] {
            assert!(!text.contains(name), "{path} shows {name}: {text}");
        }
        assert!(!text.contains(&theirs.agent.workspace.workspace_id.to_string()), "{path}");
    }
    for path in [
        format!("/entries/{entry}"),
        format!("/workspaces/{}", theirs.agent.workspace.workspace_id),
        format!("/users/{}", theirs.agent.workspace.owner_id),
    ] {
        assert_eq!(stage.answer(&token, &path, "").await.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(stage.answer(&stage.auditor, &path, "").await.status(), StatusCode::OK, "{path}");
    }
    let theirs = stage.answer(&token, "/?q=organization%3Aorg-2", "").await;
    assert_eq!(theirs.status(), StatusCode::BAD_REQUEST);
    assert!(theirs.text().await.unwrap().contains("either does not exist, or you are unauthorized"));
}

#[tokio::test]
async fn menus_work_without_scripts_and_the_address_keeps_what_they_chose() {
    let stage = Pages::new().await;
    let chosen = stage
        .answer(
            &stage.auditor,
            "/filter?q=app%3Acursor+type%3Assh&type=tunnel&status=&workspace=a+b&from=2026-11-24T10:00&to=&range=24h",
            "connlog_zone=Europe/Berlin",
        )
        .await;
    let next = location(&chosen);
    let url: reqwest::Url = format!("http://x{next}").parse().unwrap();
    let query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let expected = r#"app:cursor type:tunnel workspace:"a b" connected_after:"2026-11-24T09:00:00Z""#;
    assert_eq!(query, [("q".to_owned(), expected.to_owned())]);
    let page = stage.answer(&stage.auditor, &next, "connlog_zone=Europe/Berlin").await.text().await.unwrap();
    assert!(page.contains(r#"<option value="tunnel" selected>"#), "the menu shows what was chosen");
    assert!(page.contains(r#"name="from" value="2026-11-24T10:00""#), "in the zone that it was chosen in");
    // A finer bound than a field can show is left alone.
    let fine = location(
        &stage
            .answer(
                &stage.auditor,
                "/filter?q=connected_after%3A%222026-11-24T09%3A00%3A30.5Z%22&from=2026-11-24T09:00",
                "",
            )
            .await,
    );
    assert!(fine.contains("30%2E5Z"), "{fine}");
    let no_time = location(&stage.answer(&stage.auditor, "/filter?from=yesterday", "").await);
    let answer = stage.answer(&stage.auditor, &no_time, "").await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn entries_are_by_day_of_the_zone_with_gaps_where_they_happened() {
    let stage = Pages::new().await;
    let agent = &stage.sites[0].agent;
    let midnight = truncate_to_micros(Utc::now()).date_naive().and_hms_opt(0, 0, 0).unwrap().and_utc();
    let evening = midnight - TimeDelta::minutes(30);
    let events = vec![
        ended(agent, 1, evening, TimeDelta::minutes(134), 0),
        fixtures::web(agent, 2, evening - TimeDelta::hours(3), Method::WorkspaceApp),
    ];
    let gap = lost(&stage.sites[0], 3, evening - TimeDelta::hours(1), "spool full");
    stage.store.apply_batch(&Batch { events, lost: vec![gap], ..Batch::default() }, 1, now()).await.unwrap();
    let page = stage.page("/").await;
    assert_eq!(page.matches("<section class=\"day\"").count(), 1, "one day in UTC");
    let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not in {page}"));
    assert!(page.contains(", 2 h 14 m, exit 0"), "{page}");
    assert!(place("exit 0</bdi>") < place("7 events were lost: spool full"));
    assert!(place("7 events were lost: spool full") < place(" opened "));
    assert!(page.contains(&format!("<time datetime=\"{}\">23:30:00</time>", rfc3339(evening))));
    // East of Greenwich the session began on the next day.
    let page = stage.answer(&stage.auditor, "/", "connlog_zone=Europe/Berlin").await.text().await.unwrap();
    assert_eq!(page.matches("<section class=\"day\"").count(), 2, "two days in Berlin");
    assert!(page.contains(&format!("data-date=\"{}\"", midnight.date_naive())));
    // Gaps belong to everything, not to every search.
    let other_search = stage.page("/?q=type%3Assh").await;
    assert!(!other_search.contains("spool full") && other_search.contains("1 gap of the record in this span"));
    assert!(stage.page("/?q=organization%3Aorg-1").await.contains("spool full"));
    assert!(!stage.page("/?q=organization%3Aorg-2").await.contains("spool full"));
    let workspace = format!("/workspaces/{}", agent.workspace.workspace_id);
    assert!(stage.page(&workspace).await.contains("spool full"));
    let other = format!("/workspaces/{}", stage.sites[1].agent.workspace.workspace_id);
    assert!(!stage.page(&other).await.contains("spool full"));
}

#[tokio::test]
async fn a_gap_at_the_border_of_two_pages_is_shown_once() {
    let stage = Pages::new().await;
    let agent = &stage.sites[0].agent;
    let start = now() - TimeDelta::hours(2);
    let events = (0..60).map(|number: i64| {
        fixtures::web(
            agent,
            100 + u128::from(number.unsigned_abs()),
            start + TimeDelta::minutes(number),
            Method::Tunnel,
        )
    });
    // Before all, at both sides of a border, between them, and after all; in half minutes.
    let places = [-6, 19, 20, 68, 69, 70, 119, 130];
    let gaps = (0_u32..).zip(places).map(|(number, half_minutes)| {
        let time = start + TimeDelta::seconds(30 * half_minutes);
        lost(&stage.sites[0], u128::from(number) + 1, time, &format!("gap-{number}."))
    });
    let batch = Batch { events: events.collect(), lost: gaps.collect(), ..Batch::default() };
    stage.store.apply_batch(&batch, 1, now()).await.unwrap();
    let (mut path, mut shown, mut pages) = ("/".to_owned(), String::new(), 0);
    loop {
        let page = stage.page(&path).await;
        shown.push_str(&page);
        pages += 1;
        let Some((before, _)) = page.split_once("\">Older") else { break };
        path = before.rsplit_once("href=\"").unwrap().1.replace("&amp;", "&").replace("&#38;", "&");
    }
    assert_eq!(pages, 3);
    for number in 0..places.len() {
        assert_eq!(shown.matches(&format!("gap-{number}.")).count(), 1, "gap {number}");
    }
    assert_eq!(shown.matches("data-id=").count(), 60);
}

#[tokio::test]
async fn odd_input_gets_an_error_that_helps_and_never_a_failure() {
    let stage = Pages::new().await;
    write(&stage.store, vec![fixtures::connect(&stage.sites[0].agent, 1, now())]).await;
    for (path, says) in [
        ("/?q=tipe%3Assh", "Did you mean &#34;type&#34;?"),
        ("/?q=a%3Ab%3Ac", "can only contain 1"),
        ("/?q=organization%3Anone", "either does not exist"),
        ("/?range=soon", "range"),
        ("/?after=nonsense", "is not a cursor"),
    ] {
        let response = stage.answer(&stage.auditor, path, "").await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains(says), "{path}: {text}");
    }
    let long = "x".repeat(20_000);
    for path in [
        "/?q=%00",
        "/?q=reason%3A%22%00%22",
        "/?trail=...",
        "/?trail=nonsense&after=",
        "/?range=99999d",
        "/?range=0",
        "/?q=connected_after%3A%229999-12-31T23%3A59%3A59Z%22",
        "/?q=connected_before%3A%220001-01-01T00%3A00%3A00Z%22",
        "/?q=connected_after%3A%222026-01-02T00%3A00%3A00Z%22%20connected_before%3A%222026-01-01T00%3A00%3A00Z%22",
        "/picture?q=connected_after%3A%220001-01-01T00%3A00%3A00Z%22",
        "/picture?q=connected_after%3A%229999-12-31T23%3A59%3A59Z%22",
        "/picture?range=99999d",
        "/picture?range=1s",
        "/export?range=99999d",
        "/entries/x",
        "/workspaces/x",
        "/users/00000000-0000-0000-0000-000000000000",
        "/complete?word=%00",
        "/complete?word=workspace:%00",
        "/complete?word=:::",
        &format!("/complete?word=username:{long}"),
        &format!("/?q={long}"),
        "/filter?from=%00&type=%22%20x",
        "/assets/x/nothing.js",
    ] {
        let response = stage.answer(&stage.auditor, path, "connlog_zone=%00; connlog_theme=<b>").await;
        let shown: String = path.chars().take(60).collect();
        assert!(!response.status().is_server_error(), "{shown}: {}", response.status());
    }
}

#[tokio::test]
async fn whatever_can_be_searched_can_be_counted_for_its_export() {
    let stage = Pages::new().await;
    let time = now() - TimeDelta::hours(1);
    let agent = &stage.sites[0].agent;
    let session = ended(agent, 1, time, TimeDelta::minutes(5), 3);
    write(&stage.store, vec![session, fixtures::web(agent, 2, time, Method::Tunnel)]).await;
    let id = agent.workspace.workspace_id;
    for (query, count) in [
        ("", "2 entries"),
        ("organization:org-1", "2 entries"),
        ("workspace_owner:user-1", "2 entries"),
        ("username:user-1", "1 entry"),
        ("user_email:user-1@example.com", "1 entry"),
        ("type:ssh code:3", "1 entry"),
        ("agent:main", "2 entries"),
        ("reason:x", "0 entries"),
        ("workspace:workspace-1", "2 entries"),
        ("ip:10.0.0.0/8", "1 entry"),
        ("code:>=200", "1 entry"),
        ("longer_than:1m", "1 entry"),
        ("inferred:false", "2 entries"),
        ("other_owner:true", "0 entries"),
        ("status:completed code:!=0", "1 entry"),
        (&format!("workspace_id:{id}"), "2 entries"),
    ] {
        let page = stage.page(&format!("/export?q={}", percent_encoding(query))).await;
        assert!(page.contains(&format!(">{count}</strong>")), "{query}: {page}");
    }
}

#[tokio::test]
async fn a_picture_has_the_sessions_that_were_open_whenever_they_began() {
    let stage = Pages::new().await;
    let (agent, time) = (&stage.sites[0].agent, now());
    let long_ago = time - TimeDelta::days(4);
    let events = vec![
        ended(agent, 1, long_ago, TimeDelta::days(4) - TimeDelta::minutes(30), 0),
        ended(agent, 2, long_ago, TimeDelta::days(1), 0),
        fixtures::connect(agent, 3, time - TimeDelta::days(60)),
        fixtures::web(agent, 4, time - TimeDelta::minutes(5), Method::Tunnel),
    ];
    write(&stage.store, events).await;
    let page = stage.page("/picture?range=1h").await;
    let has = |connection| page.contains(&format!("/entries/{}", agent.row_id(Uuid::from_u128(connection))));
    assert_eq!((has(1), has(2), has(3)), (true, false, true), "{page}");
    assert!(page.contains("At most 2 sessions at once"), "{page}");
}

#[tokio::test]
async fn a_live_page_misses_nothing_since_it_was_loaded() {
    let stage = Pages::new().await;
    let page = stage.page("/").await;
    let (_, rest) = page.split_once("data-live=\"").unwrap();
    let path = rest.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&");
    write(&stage.store, vec![fixtures::connect(&stage.sites[0].agent, 1, now())]).await;
    let mut live = stage.answer(&stage.auditor, &path, "").await;
    let mut text = String::new();
    while !text.contains("event: connect") {
        let chunk = tokio::time::timeout(std::time::Duration::from_secs(30), live.chunk()).await.unwrap().unwrap();
        text.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
    }
}

#[tokio::test]
async fn an_error_is_a_page_like_the_others() {
    let stage = Pages::new().await;
    let response = stage.answer(&stage.auditor, "/entries/none", "connlog_theme=dark").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(response.headers().contains_key(CONTENT_SECURITY_POLICY));
    let page = response.text().await.unwrap();
    assert!(page.contains("data-theme=\"dark\"") && page.contains("<nav") && page.contains("Not found."), "{page}");
    for path in ["/picture?q=tipe%3Ax&range=24h", "/export?q=tipe%3Ax&range=24h"] {
        let shown = location(&stage.answer(&stage.auditor, path, "").await);
        assert_eq!(shown, "/?q=tipe%3Ax&range=24h", "the log says what is wrong, under the word");
    }
    // A range is chosen instead of bounds that are written.
    let page = stage.page("/?range=2h&q=connected_after%3A%222020-01-01T00%3A00%3A00Z%22").await;
    assert!(
        page.contains("<option value=\"2h\" selected>Last 2h</option>") && page.contains("name=\"q\" value=\"\""),
        "{page}"
    );
}
