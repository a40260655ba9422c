//! What a reporter says for agents that cannot: that they live, what they have open, and what was lost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod support;

use chrono::TimeDelta;
use connlog_model::role::Role;
use connlog_proto::v1;
use connlog_proto::v1::reported_event::Event as Said;
use connlog_store::Store;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{self, Site, now};
use connlog_testkit::wait::until;
use support::{Service, authorized, client, connect, database_with, disconnect, minutes_ago, number};
use tokio_postgres::Client;
use uuid::Uuid;

/// A reporter that speaks for one agent.
struct Stage {
    database: TestDatabase,
    store: Store,
    log: Client,
    service: Service,
    site: Site,
    token: String,
}

impl Stage {
    async fn new() -> Self {
        let (database, store, mut sites) = database_with(1).await;
        let token = fixtures::api_token(&store, Role::Reporter, None, None, now()).await.unwrap();
        let service = Service::start(database.url(), &[]).await;
        let log = database.client().await.unwrap();
        Self { database, store, log, service, site: sites.remove(0), token }
    }

    async fn report(&self, boot: Uuid, said: Vec<Said>) -> v1::ReportEventsResponse {
        let events = said.into_iter().map(|said| v1::ReportedEvent {
            workspace_id: self.site.agent.workspace.workspace_id.as_bytes().to_vec(),
            agent_name: self.site.agent.agent_name.clone(),
            boot_id: boot.as_bytes().to_vec(),
            event: Some(said),
            ..v1::ReportedEvent::default()
        });
        let request = v1::ReportEventsRequest { events: events.collect() };
        client(self.service.address).await.report_events(authorized(request, &self.token)).await.unwrap().into_inner()
    }

    async fn sweep(&self, after: TimeDelta) -> usize {
        self.store.sweep_silent(now() + after, minutes_ago(600), TimeDelta::minutes(10)).await.unwrap().len()
    }

    /// How a connection ended: empty if it did not.
    async fn reason(&self, id: Uuid) -> String {
        let sql = "SELECT coalesce(disconnect_reason, '') FROM connection_logs WHERE connection_id = $1";
        self.log.query_one(sql, &[&id]).await.unwrap().get(0)
    }
}

fn presence(boot: Uuid, open: &[Uuid]) -> Said {
    let open_connection_ids = open.iter().map(|id| id.as_bytes().to_vec()).collect();
    Said::Presence(v1::Presence { boot_id: boot.as_bytes().to_vec(), open_connection_ids })
}

#[tokio::test]
async fn an_agent_that_a_reporter_speaks_for_is_lost_when_the_reporter_falls_silent_and_is_back_with_it() {
    let stage = Stage::new().await;
    let (boot, id) = (Uuid::new_v4(), Uuid::new_v4());
    let begun = Said::Connection(connect(id, minutes_ago(30)));
    let answer = stage.report(boot, vec![begun, presence(boot, &[id])]).await;
    assert_eq!((answer.accepted, answer.rejected.len()), (2, 0));
    assert_eq!(stage.sweep(TimeDelta::minutes(9)).await, 0);
    // An agent that somebody holds, the service's own sweep say, has its turn in the next one.
    until("it is taken for lost", async || stage.sweep(TimeDelta::minutes(11)).await == 1).await;
    assert_eq!(stage.reason(id).await, "agent lost");
    stage.report(boot, vec![presence(boot, &[id])]).await;
    assert_eq!(stage.reason(id).await, "");
    // A real end is no matter of presence.
    let ended = Said::Connection(disconnect(id, minutes_ago(1)));
    stage.report(boot, vec![ended, presence(boot, &[])]).await;
    assert_eq!(stage.reason(id).await, "bye");
}

#[tokio::test]
async fn a_new_boot_ends_what_it_does_not_list_and_a_boot_what_it_no_longer_lists() {
    let stage = Stage::new().await;
    let (old, new) = (Uuid::new_v4(), Uuid::new_v4());
    let [kept, forgotten, unsaid] = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    let said = |id| Said::Connection(connect(id, minutes_ago(30)));
    stage.report(old, vec![said(kept), said(forgotten), presence(old, &[kept, forgotten])]).await;
    // One of which nobody said under which boot it is open: a presence that does not list it says nothing of it.
    stage.report(Uuid::nil(), vec![said(unsaid)]).await;
    stage.report(new, vec![presence(new, &[kept])]).await;
    assert_eq!(stage.reason(forgotten).await, "agent restarted");
    assert_eq!((stage.reason(kept).await, stage.reason(unsaid).await), (String::new(), String::new()));
    // It is the boot's once it is listed.
    stage.report(new, vec![presence(new, &[kept, unsaid])]).await;
    stage.report(new, vec![presence(new, &[kept])]).await;
    assert_eq!(stage.reason(unsaid).await, "disconnect lost");
    assert_eq!(stage.reason(kept).await, "");
    let spools = "SELECT count(*) FROM agent_spools";
    assert_eq!(number(&stage.log, spools).await, 1, "a reporter has one for an agent");
}

#[tokio::test]
async fn what_a_reporter_lost_is_recorded_once() {
    let stage = Stage::new().await;
    let lost = |count, since: i64| {
        Said::Lost(v1::LostEvents {
            count,
            since: Some(support::timestamp(minutes_ago(0) - TimeDelta::minutes(since))),
            cause: "restarted".to_owned(),
            ..v1::LostEvents::default()
        })
    };
    let said = vec![lost(7, 30), lost(7, 20), lost(0, 10)];
    for _ in 0..2 {
        let answer = stage.report(Uuid::nil(), said.clone()).await;
        let rejected: Vec<_> = answer.rejected.iter().map(|one| (one.seq, one.field.as_str())).collect();
        assert_eq!((answer.accepted, rejected), (2, vec![(2, "count")]));
    }
    let sql = "SELECT count(*) FROM lost_events WHERE events = 7 AND cause = 'restarted' AND spool_id IS NULL AND since IS NOT NULL";
    assert_eq!(number(&stage.log, sql).await, 2);
    assert_eq!(number(&stage.log, "SELECT count(*) FROM lost_events").await, 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_presence_is_named_and_kept() {
    let stage = Stage::new().await;
    let nil = Said::Presence(v1::Presence::default());
    let odd = Said::Presence(v1::Presence {
        boot_id: Uuid::new_v4().as_bytes().to_vec(),
        open_connection_ids: vec![vec![1]],
    });
    let answer = stage.report(Uuid::nil(), vec![nil, odd]).await;
    let rejected: Vec<_> = answer.rejected.iter().map(|one| (one.seq, one.field.as_str())).collect();
    assert_eq!((answer.accepted, rejected), (0, vec![(0, "boot_id"), (1, "open_connection_ids")]));
    let client = stage.database.client().await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM rejected_events").await, 2);
}
