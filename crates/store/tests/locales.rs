//! What is found by a text in another case, in databases of several locales: what PostgreSQL makes of a letter depends on them.

use std::sync::Arc;

use chrono::TimeDelta;
use connlog_model::event::{Action, Outcome};
use connlog_model::identity::AgentIdentity;
use connlog_model::search::Search;
use connlog_store::read::{PageRequest, Reach};
use connlog_store::schema;
use connlog_store::write::Batch;
use connlog_testkit::database::TestDatabase;
use connlog_testkit::fixtures::{self, now};

/// A locale in which no letter beyond ASCII has a case, and one in which the small I has no dot.
const LOCALES: [&str; 2] = ["LOCALE 'C'", "LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'tr'"];

#[tokio::test]
async fn a_text_is_found_in_any_case_whatever_the_locale_of_the_database() {
    for locale in LOCALES {
        let database =
            TestDatabase::create_with(&format!("TEMPLATE template0 ENCODING 'UTF8' {locale}")).await.unwrap();
        let store = database.store().unwrap();
        schema::migrate(&store).await.unwrap();
        let site = fixtures::site(1, 1);
        fixtures::import(&store, &site.directory, now()).await.unwrap();
        let mut agent = AgentIdentity::clone(&site.agent);
        "Main-Ä.I".clone_into(&mut agent.agent_name);
        "Würfel-II".clone_into(&mut agent.workspace.workspace_name);
        let agent = Arc::new(agent);
        let outcome = Outcome { reason: "Viel Ärger (INIT) 100%".to_owned(), ..Outcome::default() };
        let action = Action::Disconnect { connected_at: Some(now() - TimeDelta::minutes(5)), outcome };
        let events = vec![fixtures::agent_event(&agent, 1, now() - TimeDelta::minutes(4), action)];
        store.apply_batch(&Batch { events, ..Batch::default() }, 1, now()).await.unwrap();
        for (query, is_found) in [
            ("reason:ÄRGER", true),
            ("reason:ärger", true),
            ("reason:\"ÄRGER (init) 100%\"", true),
            ("reason:.rger", false),
            ("reason:arger", false),
            ("agent:MAIN-Ä.I", true),
            ("agent:main-ä.i", true),
            ("agent:main-ä", false),
            ("agent:main-äxi", false),
            ("workspace:WÜRFEL-ii", true),
            ("workspace:würfel-II", true),
        ] {
            let search = Search::parse(query).unwrap();
            let page = store.page(&search, &Reach::default(), PageRequest::first(10, now())).await.unwrap().unwrap();
            assert_eq!(page.count.entries, i64::from(is_found), "{query} in {locale}");
        }
    }
}
