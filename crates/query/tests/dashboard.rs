//! The pages of the dashboard as they are sent: what a browser without scripts has, and what nobody may get. What moves is used
//! in a real browser by `cargo xtask dashboard`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use connlog_testkit::fixtures::{self, Site, now};
use connlog_testkit::stage::write;
use connlog_testkit::wait::until;
use std::ops::Deref;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use connlog_model::clock::{Timestamp, rfc3339, truncate_to_micros};
use connlog_model::event::{Action, AgentEvent, Client, Event, Outcome, Source, WebEvent};
use connlog_model::identity::{AgentIdentity, Workspace};
use connlog_model::method::Method;
use connlog_model::role::Role;
use connlog_store::directory::DirectoryEntry;
use connlog_store::write::Batch;
use connlog_store::{Hole, LostRecord, RejectedRecord};
use reqwest::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, LOCATION, SET_COOKIE};
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
        request.header(COOKIE, format!("connlog_session={token}; {cookies}")).send().await.unwrap()
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

#[tokio::test]
async fn a_session_is_the_token_in_a_cookie_and_ends_with_it() {
    let stage = Pages::new().await;
    let signed_out = stage.http.get(format!("{}/record?x=y", stage.service.base)).send().await.unwrap();
    assert_eq!(location(&signed_out), "/signin?next=%2Frecord%3Fx%3Dy");
    let form = format!("token={}&next=%2Frecord", stage.auditor);
    let signed_in = stage.post("/signin", &form, &[("sec-fetch-site", "same-origin")]).await;
    assert_eq!(location(&signed_in), "/record");
    let cookie = signed_in.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    for part in [&format!("connlog_session={};", stage.auditor), "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age="] {
        assert!(cookie.contains(part), "{part} is not in {cookie}");
    }
    assert!(!cookie.contains("Secure"), "without TLS a browser would not send it back");
    let behind_tls = stage.post("/signin", &form, &[("x-forwarded-proto", "https")]).await;
    assert!(behind_tls.headers()[SET_COOKIE].to_str().unwrap().contains("; Secure"));

    stage.page("/record").await;
    let client = stage.database.client().await.unwrap();
    client.execute("UPDATE api_tokens SET revoked_at = now()", &[]).await.unwrap();
    let answer = async || stage.answer(&stage.auditor, "/record", "").await;
    let is_signed_out = async || answer().await.status() == StatusCode::SEE_OTHER;
    until("the revoked token is no longer in the cache", is_signed_out).await;
    assert!(location(&answer().await).starts_with("/signin"));
    let signed_out = stage.post("/signout", "", &[("sec-fetch-site", "same-origin")]).await;
    assert_eq!(location(&signed_out), "/signin");
    assert!(signed_out.headers()[SET_COOKIE].to_str().unwrap().starts_with("connlog_session=; "));
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
