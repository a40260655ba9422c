//! Reading while something else happens, in a schedule that is forced.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use connlog_model::event::{Event, WebEvent};
use connlog_model::identity::{AgentIdentity, Workspace};
use connlog_model::method::Method;
use connlog_model::search::Search;
use connlog_store::directory::DirectoryEntry;
use connlog_store::read::{Count, Entry, Page, PageRequest, Reach, StatsRequest};
use connlog_store::write::Batch;
use connlog_store::{Store, StoreConfig, StoreError};
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::gate::{Change, Gate, Report, Rewrite, changing};
use connlog_testkit::wait::until;
use uuid::Uuid;

/// Drops a day before each statement of a page of two days. Returns how often that was refused, the page, and how many rows of
/// the day went after it.
async fn read_while_a_day_is_dropped(rewrite: Option<Rewrite>) -> (usize, Result<Page, StoreError>, Option<i64>) {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let site = fixtures::site(1, 1);
    fixtures::import(&store, &site.directory, now()).await.unwrap();
    let (recent, old) = (now() - TimeDelta::hours(1), now() - TimeDelta::days(30));
    let events = [recent, old].into_iter().zip(1..);
    let events = events.map(|(time, n)| fixtures::web(&site.agent, n, time, Method::WorkspaceApp)).collect();
    store.apply_batch(&Batch { events, ..Batch::default() }, 1, now()).await.unwrap();

    let (mut gate, url) = Gate::before(database.url(), rewrite).await.unwrap();
    let reader = Store::new(&StoreConfig::new(url, "reader", 1)).unwrap();
    let search = Search::parse(&format!("workspace_id:{}", site.agent.workspace.workspace_id)).unwrap();
    let request = PageRequest::first(100, now());
    let page = async || reader.page(&search, &Reach::default(), request).await.map(Result::unwrap);
    assert_eq!(page().await.unwrap().count.entries, 2);

    store.close_days(now()).await.unwrap();
    gate.close().await;
    let mut refused = 0;
    let reading = page();
    tokio::pin!(reading);
    let page = loop {
        tokio::select! {
            page = &mut reading => break page,
            report = gate.report() => {
                let Report::Arrived(waiting) = report.unwrap() else { continue };
                // Whatever it has read by now, the day stays for the rest.
                if !["begin_read", "rollback"].contains(&waiting.name.as_str()) {
                    let dropped = store.drop_day(old.date_naive(), Duration::from_millis(10)).await;
                    refused += usize::from(matches!(dropped, Err(StoreError::LockTimeout(_))));
                }
                waiting.release();
            }
        }
    };
    gate.reopen().await;
    let gone = store.drop_day(old.date_naive(), Duration::from_secs(5)).await.unwrap();
    let after = reader.page(&search, &Reach::default(), request).await.unwrap().unwrap();
    assert_eq!((after.count.entries, after.entries[0].connect_time), (1, recent));
    (refused, page, gone)
}

#[tokio::test]
async fn a_day_stays_as_long_as_a_page_is_read() {
    let (refused, page, gone) = Box::pin(read_while_a_day_is_dropped(None)).await;
    assert!(refused >= 2, "it was refused {refused} times");
    let page = page.unwrap();
    assert_eq!((page.count.entries, page.entries.len(), gone), (2, 2, Some(1)));
}

#[tokio::test]
async fn a_page_without_its_lock_is_caught() {
    const UNLOCKED: &[Change] = &[("begin_read", "; LOCK TABLE ONLY connection_logs IN ACCESS SHARE MODE", "")];
    let (_, page, _) = Box::pin(read_while_a_day_is_dropped(Some(changing(UNLOCKED)))).await;
    assert!(page.is_err() || page.is_ok_and(|page| page.entries.len() < 2), "the day went while it was read");
}

/// A workspace as it is for a while: its number, and those of its owner and its organization, and its name.
type Home = (u128, u128, u128, &'static str);

fn agent_of((workspace, owner, organization, name): Home) -> Arc<AgentIdentity> {
    let mut agent = AgentIdentity::clone(&fixtures::site(workspace, organization).agent);
    agent.workspace.owner_id = fixtures::site(owner, organization).agent.workspace.owner_id;
    name.clone_into(&mut agent.workspace.workspace_name);
    Arc::new(agent)
}

fn entry_of(workspace: &Workspace) -> DirectoryEntry {
    let Workspace { organization_id, owner_id, workspace_id, workspace_name } = workspace.clone();
    DirectoryEntry::Workspace { id: workspace_id, organization_id, owner_id, name: workspace_name, deleted: false }
}

/// A search, the organizations that the caller reaches, and what it finds.
type Case<'a> = (&'a str, Option<Vec<Uuid>>, fn(&Home) -> bool);

/// Kinds of entries, each by the number that it has here, and searches for them.
const KINDS: [(&str, &[u128]); 4] = [
    ("", &[COMPLETED, ONGOING, TUNNEL]),
    ("status:completed", &[COMPLETED]),
    ("status:ongoing", &[ONGOING]),
    ("method:tunnel", &[TUNNEL]),
];
const COMPLETED: u128 = 1;
const ONGOING: u128 = 2;
const TUNNEL: u128 = 3;

#[tokio::test]
async fn a_search_finds_what_workspaces_had_under_each_of_their_owners_and_names() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    for number in 1..=4 {
        let mut directory = fixtures::site(number, number).directory;
        directory.retain(|entry| matches!(entry, DirectoryEntry::Organization { .. } | DirectoryEntry::User { .. }));
        fixtures::import(&store, &directory, now()).await.unwrap();
    }
    // The first workspace goes to another owner, then into another organization, where it gets another name.
    let homes: [Home; 6] =
        [(1, 1, 1, "dev"), (2, 2, 2, "dev"), (3, 2, 3, "dev"), (4, 4, 4, "solo"), (1, 2, 1, "dev"), (1, 3, 2, "Prod")];
    for (home, n) in homes.into_iter().zip(0..) {
        let agent = agent_of(home);
        fixtures::import(&store, &[entry_of(&agent.workspace)], now()).await.unwrap();
        let time = now() - TimeDelta::days(30) + TimeDelta::days(5) * n;
        let number = |kind| 10 * u128::try_from(n).unwrap() + kind;
        let events = vec![
            fixtures::connect(&agent, number(COMPLETED), time),
            fixtures::disconnect(&agent, number(COMPLETED), time + TimeDelta::minutes(1)),
            fixtures::connect(&agent, number(ONGOING), time),
            Event::Web(WebEvent {
                connection_id: Some(Uuid::from_u128(number(TUNNEL))),
                ..fixtures::web_event(&agent, number(TUNNEL), time, Method::Tunnel)
            }),
        ];
        store.apply_batch(&Batch { events, ..Batch::default() }, 1, now()).await.unwrap();
    }

    let beginning = store.feed_start().await.unwrap();
    // The feed ends where the oldest transaction of the server does, another test's, say.
    let everything = async || {
        let changes = store.changes(&Search::default(), &Reach::default(), beginning, 100, now()).await;
        changes.unwrap().unwrap().entries.len()
    };
    until("the feed has everything", async || everything().await >= 3 * homes.len()).await;
    let stats = StatsRequest {
        from: now() - TimeDelta::days(40),
        to: now() + TimeDelta::days(1),
        bucket: TimeDelta::days(1),
        top: 10,
        budget: Duration::from_secs(10),
        now: now(),
    };
    let organization = |n| fixtures::site(n, n).agent.workspace.organization_id;
    let within = |numbers: &[u128]| Some(numbers.iter().map(|n| organization(*n)).collect::<Vec<_>>());
    let first = format!("workspace_id:{}", fixtures::site(1, 1).agent.workspace.workspace_id);
    let cases: [Case<'_>; 15] = [
        ("workspace:dev", None, |home| home.3 == "dev"),
        ("workspace:prod", None, |home| home.3 == "Prod"),
        ("workspace:solo", None, |home| home.3 == "solo"),
        ("workspace:nobody-has-it", None, |_| false),
        ("workspace_owner:user-1", None, |home| home.1 == 1),
        ("workspace_owner:user-2", None, |home| home.1 == 2),
        ("workspace_owner:user-3", None, |home| home.1 == 3),
        ("workspace_owner:user-2 workspace:dev", None, |home| home.1 == 2 && home.3 == "dev"),
        ("workspace_owner:user-1 workspace:prod", None, |_| false),
        (&first, None, |home| home.0 == 1),
        ("organization:org-2 workspace:dev", None, |home| home.2 == 2 && home.3 == "dev"),
        ("workspace:dev", within(&[1, 3]), |home| home.2 != 2 && home.3 == "dev"),
        ("workspace_owner:user-2", within(&[1, 2]), |home| home.1 == 2 && home.2 != 3),
        (&first, within(&[2]), |home| home.0 == 1 && home.2 == 2),
        (&first, within(&[4]), |_| false),
    ];
    for (query, organizations, matches) in cases {
        let reach = Reach { organizations, user_id: None };
        for (kind, numbers) in KINDS {
            let search = Search::parse(&format!("{query} {kind}")).unwrap();
            let page = store.page(&search, &reach, PageRequest::first(100, now())).await.unwrap().unwrap();
            let id_of = |entry: &Entry| entry.connection_id.unwrap().as_u128();
            let found: BTreeSet<u128> = page.entries.iter().map(id_of).collect();
            let homes = homes.iter().zip(0..).filter(|(home, _)| matches(home));
            let wanted: BTreeSet<u128> =
                homes.flat_map(|(_, n)| numbers.iter().map(move |kind| 10 * n + kind)).collect();
            assert_eq!(found, wanted, "{query} {kind} within {:?}", reach.organizations);
            let count = Count { entries: i64::try_from(wanted.len()).unwrap(), exact: true };
            assert_eq!((page.entries.len(), page.count), (wanted.len(), count), "{query} {kind}");

            let chunk =
                store.export_chunk(&search, &reach, None, 100, Duration::from_secs(10), now()).await.unwrap().unwrap();
            assert_eq!(chunk.entries.iter().map(id_of).collect::<BTreeSet<u128>>(), wanted, "export of {query} {kind}");
            let changes = store.changes(&search, &reach, beginning, 100, now()).await.unwrap().unwrap();
            assert_eq!(changes.entries.iter().map(id_of).collect::<BTreeSet<u128>>(), wanted, "feed of {query} {kind}");
            let stats = store.stats(&search, &reach, stats).await.unwrap().unwrap();
            let counted = stats.buckets.values().flat_map(|bucket| bucket.methods.values()).sum::<i64>();
            let ranked = stats.workspaces.iter().map(|workspace| workspace.entries).sum::<i64>();
            assert_eq!((counted, ranked), (count.entries, count.entries), "stats of {query} {kind}");
        }
    }
}

/// Without this, changes that a dump brought along from a server that had run for longer are never read, and nothing after them.
#[tokio::test]
async fn a_feed_that_was_restored_into_a_younger_server_begins_anew() {
    let database = TestDatabase::create().await.unwrap();
    let (store, client) = (database.store().unwrap(), database.client().await.unwrap());
    let agent = fixtures::site(1, 1).agent;
    let write = async |number| {
        let events = vec![fixtures::connect(&agent, number, now())];
        store.apply_batch(&Batch { events, ..Batch::default() }, 1, now()).await.unwrap();
    };
    write(1).await;
    assert!(!store.restart_void_feed().await.unwrap(), "there is nothing wrong with it");
    let before = store.feed_start().await.unwrap();
    store.register_consumer("siem").await.unwrap();
    client.batch_execute("UPDATE changes SET xid = (xid::text::bigint + 1000000000)::text::xid8").await.unwrap();
    assert!(store.feed_end().await.unwrap_err().is_unavailable());
    assert!(store.restart_void_feed().await.unwrap());
    assert!(!store.restart_void_feed().await.unwrap());
    assert!(!store.knows_position(before).await.unwrap());
    assert!(store.consumers().await.unwrap()[0].gap_at.is_some());
    let begins = store.feed_start().await.unwrap();
    write(2).await;
    let found = async || {
        let changes = store.changes(&Search::default(), &Reach::default(), begins, 100, now()).await;
        changes.unwrap().unwrap().entries.iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    until("what comes later is read", async || found().await == [agent.row_id(Uuid::from_u128(2))]).await;
}
