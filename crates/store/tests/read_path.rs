//! Reading while something else happens, in a schedule that is forced.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use connlog_model::clock::{Timestamp, truncate_to_micros};
use connlog_model::method::Method;
use connlog_model::search::Search;
use connlog_store::read::{PageRequest, Reach};
use connlog_store::write::Batch;
use connlog_store::{Store, StoreConfig};
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures;
use connlog_testkit::gate::{Gate, Report};

fn now() -> Timestamp {
    truncate_to_micros(Utc::now())
}

#[tokio::test]
async fn a_day_that_is_purged_while_a_page_is_read_is_not_on_it() {
    let database = TestDatabase::create().await.unwrap();
    let store = database.store().unwrap();
    let site = fixtures::site(1, 1);
    fixtures::import(&store, &site.directory, now()).await.unwrap();
    let (recent, old) = (now() - TimeDelta::hours(1), now() - TimeDelta::days(30));
    let events = [recent, old].into_iter().zip(1..);
    let events = events.map(|(time, n)| fixtures::web(&site.agent, n, time, Method::WorkspaceApp)).collect();
    store.apply_batch(&Batch { events, ..Batch::default() }, 1, now()).await.unwrap();

    let server = database.url().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let mut gate = Gate::open(server.clone(), None).await.unwrap();
    let url = database.url().replace(&server, &format!("127.0.0.1:{}", gate.port())) + "?sslmode=disable";
    let reader = Store::new(&StoreConfig::new(url, "reader", 1)).unwrap();
    let search = Search::parse(&format!("workspace_id:{}", site.agent.workspace.workspace_id)).unwrap();
    let request = PageRequest::first(100, now());
    let page = async || reader.page(&search, &Reach::default(), request).await.unwrap().unwrap();
    assert_eq!(page().await.count.entries, 2);

    gate.close().await;
    let (mut dropped, mut after) = (false, Vec::new());
    let reading = page();
    tokio::pin!(reading);
    let page = loop {
        tokio::select! {
            page = &mut reading => break page,
            report = gate.report() => {
                let Report::Arrived(waiting) = report.unwrap() else { continue };
                if dropped {
                    after.push(waiting.name.clone());
                } else if waiting.name == "count_window" {
                    store.drop_day(old.date_naive(), Duration::from_secs(5)).await.unwrap();
                    dropped = true;
                }
                waiting.release();
            }
        }
    };
    assert!(dropped && after.contains(&"calendar".to_owned()), "the page is begun anew: {after:?}");
    assert_eq!((page.count.entries, page.entries.len()), (1, 1));
    assert_eq!(page.entries[0].connect_time, recent);
}
