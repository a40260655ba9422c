//! What the role of each service may do in the database: all that it may, by PostgreSQL's own word.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fmt::Write as _;

use chrono::TimeDelta;
use connlog_model::method::Method;
use connlog_store::{AuditRecord, Store, StoreConfig, roles, schema};
use connlog_testkit::database::{TestDatabase, as_role, connect};
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::stage::write;
use tokio_postgres::Client;
use uuid::Uuid;

/// Every table but for the days, of which one stands for all, and every function, with the privileges of a role.
const TABLES: &str = "
SELECT CASE WHEN relispartition THEN 'a day' ELSE relname END AS object,
    concat_ws(' ', CASE WHEN has_table_privilege($1, oid, 'SELECT') THEN 'select'
                        WHEN has_any_column_privilege($1, oid, 'SELECT') THEN 'select(' || (
                            SELECT string_agg(attname, ',') FROM pg_attribute a
                            WHERE attrelid = c.oid AND attnum > 0 AND has_column_privilege($1, c.oid, attnum, 'SELECT')) || ')' END,
        CASE WHEN has_any_column_privilege($1, oid, 'INSERT') THEN 'insert' END,
        CASE WHEN has_any_column_privilege($1, oid, 'UPDATE') THEN 'update' END,
        CASE WHEN has_table_privilege($1, oid, 'DELETE') THEN 'delete' END,
        CASE WHEN has_table_privilege($1, oid, 'TRUNCATE') THEN 'truncate' END,
        CASE WHEN has_table_privilege($1, oid, 'TRIGGER') THEN 'trigger' END,
        CASE WHEN has_any_column_privilege($1, oid, 'REFERENCES') THEN 'references' END) AS privileges
FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S') ORDER BY 1";

const FUNCTIONS: &str = "
SELECT p.oid::regprocedure::text AS object, CASE WHEN has_function_privilege($1, p.oid, 'EXECUTE') THEN 'execute' ELSE '' END AS privileges
FROM pg_proc p WHERE pronamespace = 'public'::regnamespace ORDER BY 1";

async fn matrix(client: &Client) -> String {
    let mut text = String::new();
    for role in [roles::INGEST, roles::QUERY, roles::PURGE, "public"] {
        writeln!(text, "{role}").unwrap();
        let schema = "SELECT concat_ws(' ', CASE WHEN has_schema_privilege($1, 'public', 'USAGE') THEN 'usage' END,
            CASE WHEN has_schema_privilege($1, 'public', 'CREATE') THEN 'create' END)";
        let of_schema: String = client.query_one(schema, &[&role]).await.unwrap().get(0);
        writeln!(text, "    schema: {of_schema}").unwrap();
        for sql in [TABLES, FUNCTIONS] {
            for row in client.query(sql, &[&role]).await.unwrap() {
                let (object, privileges): (String, String) = (row.get("object"), row.get("privileges"));
                if !privileges.is_empty() {
                    writeln!(text, "    {object}: {privileges}").unwrap();
                }
            }
        }
    }
    text
}

#[tokio::test]
async fn each_role_has_the_rights_of_the_matrix_and_no_others() {
    let database = TestDatabase::create().await.unwrap();
    let client = database.client().await.unwrap();
    client.batch_execute("SELECT attach_day(current_date)").await.unwrap();
    insta::assert_snapshot!(matrix(&client).await);
    let foreign = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> 'connlog_owner'::regrole";
    let foreign: i64 = client.query_one(foreign, &[]).await.unwrap().get(0);
    assert_eq!(foreign, 0, "the owner owns everything, a day that is attached later included");
    let can_log_in = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'connlog%' AND (rolcanlogin = (rolname = 'connlog_owner')
        OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)";
    assert!(client.query(can_log_in, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_not_theirs_is_refused() {
    let database = TestDatabase::create().await.unwrap();
    let owner = database.client().await.unwrap();
    owner.batch_execute("SELECT attach_day(current_date)").await.unwrap();
    let today: String = owner.query_one("SELECT day_table(current_date)", &[]).await.unwrap().get(0);
    for (role, sql) in [
        (roles::INGEST, "DELETE FROM connection_logs"),
        (roles::INGEST, &format!("TRUNCATE {today}")),
        (roles::INGEST, "SELECT drop_day(current_date, '1s')"),
        (roles::INGEST, "UPDATE floor SET cutoff = '-infinity'"),
        (roles::INGEST, "CREATE TABLE mine ()"),
        (roles::INGEST, "DELETE FROM targets"),
        (roles::INGEST, "UPDATE targets SET owner_id = workspace_id"),
        (roles::INGEST, "UPDATE connection_logs SET target = 0"),
        (roles::INGEST, "UPDATE number_key SET key = ''"),
        (roles::INGEST, "UPDATE changes SET ids = '{}'"),
        (roles::QUERY, "UPDATE connection_logs SET code = 0"),
        (roles::QUERY, "DELETE FROM api_audit"),
        (roles::QUERY, "UPDATE api_audit SET rows = 0"),
        (roles::QUERY, "INSERT INTO api_tokens SELECT * FROM api_tokens"),
        (roles::QUERY, "SELECT FROM agent_tokens"),
        (roles::PURGE, "SELECT FROM api_tokens"),
        (roles::PURGE, "SELECT FROM agent_tokens"),
        (roles::PURGE, "SELECT message FROM rejected_events"),
        (roles::PURGE, "DELETE FROM connection_logs"),
        (roles::PURGE, "DELETE FROM purge_runs"),
        (roles::PURGE, "UPDATE floor SET minimum = '0'"),
        (roles::PURGE, "CREATE TABLE mine ()"),
    ] {
        let client = connect(&database.url_as(role)).await.unwrap();
        let error = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{role}: {sql}: {error}");
    }
}

/// A migration by somebody who is the owner's member and nothing more, on a database whose server has the roles already.
#[tokio::test]
async fn an_administrator_without_superpowers_migrates_and_sets_up() {
    let database = TestDatabase::create_empty().await.unwrap();
    let superuser = connect(database.url()).await.unwrap();
    // The roles belong to the server: whichever test comes first makes them.
    drop(TestDatabase::create().await.unwrap());
    let admin = format!("admin_{}", uuid::Uuid::new_v4().simple());
    let name: String = superuser.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {admin} CREATEROLE; GRANT connlog_owner TO {admin}; ALTER DATABASE {name} OWNER TO {admin};"
        ))
        .await
        .unwrap();
    let store = Store::new(&StoreConfig::new(as_role(database.url(), &admin), "test", 1)).unwrap();
    let applied = schema::migrate(&store).await.unwrap();
    assert_eq!(applied.len(), usize::try_from(schema::known_version()).unwrap());
    roles::set_up(&store).await.unwrap();
    roles::set_up(&store).await.unwrap();
    assert_eq!(schema::migrate(&store).await.unwrap(), Vec::<i32>::new());
    let template = TestDatabase::create().await.unwrap().client().await.unwrap();
    assert_eq!(matrix(&superuser).await, matrix(&template).await);
}

#[tokio::test]
async fn the_role_of_the_purge_removes_nothing_within_the_minimum_retention() {
    let database = TestDatabase::create().await.unwrap();
    let owner = database.client().await.unwrap();
    let (store, site) = (database.store().unwrap(), fixtures::site(1, 1));
    let days_ago = |days| now() - TimeDelta::days(days);
    let web = |number, days| fixtures::web(&site.agent, number, days_ago(days), Method::Tunnel);
    let events = vec![web(1, 100), web(2, 30), web(3, 0), fixtures::connect(&site.agent, 4, days_ago(30))];
    write(&store, events).await;
    owner
        .batch_execute(
            "INSERT INTO lost_events SELECT gen_random_uuid(), now() - '30 days'::interval, gen_random_uuid(), gen_random_uuid(),
                gen_random_uuid(), gen_random_uuid(), 1, 1, 1, NULL, NULL, 'test';
             UPDATE floor SET closed_before = date_trunc('day', now() - interval '1 day', 'UTC')",
        )
        .await
        .unwrap();
    store.set_minimum_retention(TimeDelta::days(90)).await.unwrap();
    let purge = connect(&database.url_as(roles::PURGE)).await.unwrap();
    let gone = async |sql: String| purge.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0);
    for days in [0, 30] {
        let day = format!("(now() AT TIME ZONE 'UTC')::date - {days}");
        assert_eq!(gone(format!("SELECT trim_day({day}, 'infinity', 10)")).await, 0);
        let error = purge.batch_execute(&format!("SELECT drop_day({day}, '1s')")).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "22023", "{error}");
    }
    assert_eq!(gone("SELECT remove_open('infinity', 'infinity', 10)".to_owned()).await, 0);
    assert_eq!(gone("SELECT remove_records('lost_events', 'infinity', 10)".to_owned()).await, 0);
    let raised = "SELECT raise_floor('infinity', '-Infinity') <= now() - '90 days'::interval";
    assert!(purge.query_one(raised, &[]).await.is_err(), "infinity is no retention");
    let raised = "SELECT raise_floor('infinity', -1e9) <= clock_timestamp() - '90 days'::interval";
    assert!(purge.query_one(raised, &[]).await.unwrap().get::<_, bool>(0));
    let old = "SELECT drop_day((now() AT TIME ZONE 'UTC')::date - 100, '1s')".to_owned();
    assert_eq!(gone(old).await, 1, "what is older goes");

    // Without a minimum, nothing of the future: today is not over.
    store.set_minimum_retention(TimeDelta::zero()).await.unwrap();
    let trim = "SELECT trim_day((now() AT TIME ZONE 'UTC')::date, 'infinity', 10)".to_owned();
    assert!(purge.batch_execute("SELECT drop_day((now() AT TIME ZONE 'UTC')::date, '1s')").await.is_err());
    assert_eq!(gone(trim).await, 1);
    // What is not said is not taken for as much as there is.
    let unsaid = "SELECT raise_floor(NULL, NULL) IS NULL AND trim_day(current_date, NULL, NULL) IS NULL AND drop_day(NULL, '1s') IS NULL
        AND take_purge_lease(NULL) IS NULL";
    assert!(purge.query_one(unsaid, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test]
async fn a_table_of_somebodys_with_the_name_of_a_day_is_neither_trimmed_nor_dropped() {
    let database = TestDatabase::create().await.unwrap();
    let owner = database.client().await.unwrap();
    owner
        .batch_execute(
            "CREATE TABLE connection_logs_20200101 (connect_time timestamptz, organization_id uuid, method smallint, app_name text);
             INSERT INTO connection_logs_20200101 VALUES ('2020-01-01', gen_random_uuid(), 1, '')",
        )
        .await
        .unwrap();
    let purge = connect(&database.url_as(roles::PURGE)).await.unwrap();
    for sql in ["SELECT trim_day('2020-01-01', now(), 10)", "SELECT drop_day('2020-01-01', '1s')"] {
        assert_eq!(purge.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
    }
    let left: i64 = owner.query_one("SELECT count(*) FROM connection_logs_20200101", &[]).await.unwrap().get(0);
    assert_eq!(left, 1);
}

#[tokio::test]
async fn how_a_use_of_the_api_ended_is_noted_once() {
    let database = TestDatabase::create().await.unwrap();
    let store = Store::new(&StoreConfig::new(database.url_as(roles::QUERY), "test", 1)).unwrap();
    let begun = AuditRecord {
        id: Uuid::now_v7(),
        at: now(),
        token_id: Uuid::from_u128(1),
        user_id: None,
        address: None,
        endpoint: "/api/v2/connectionlog/export".to_owned(),
        query: String::new(),
        format: Some("csv"),
        status: 200,
        rows: None,
        complete: None,
    };
    let ended = AuditRecord { rows: Some(7), complete: Some(true), ..begun.clone() };
    let rewritten = AuditRecord { rows: Some(0), complete: Some(false), query: "other".to_owned(), ..begun.clone() };
    for record in [begun, ended, rewritten] {
        store.record_audit(&[record]).await.unwrap();
    }
    let row =
        database.client().await.unwrap().query_one("SELECT rows, complete, query FROM api_audit", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1), row.get::<_, &str>(2)), (7, true, ""));
}

/// A function with the rights of the owner does not find what its caller put in its way.
#[tokio::test]
async fn temporary_objects_of_a_caller_do_not_stand_in_for_those_of_the_owner() {
    let database = TestDatabase::create().await.unwrap();
    let client = connect(&database.url_as(roles::PURGE)).await.unwrap();
    // The database of a test is a copy, which does not copy that temporary objects are forbidden in the template.
    client
        .batch_execute(
            "CREATE TEMP TABLE lost_events (id uuid, recorded_at timestamptz);
             INSERT INTO pg_temp.lost_events SELECT gen_random_uuid(), now() - interval '1 day';
             GRANT ALL ON pg_temp.lost_events TO PUBLIC",
        )
        .await
        .unwrap();
    let gone: i64 = client.query_one("SELECT remove_records('lost_events', now(), 10)", &[]).await.unwrap().get(0);
    let left: i64 = client.query_one("SELECT count(*) FROM pg_temp.lost_events", &[]).await.unwrap().get(0);
    assert_eq!((gone, left), (0, 1));
    let paths = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        AND NOT coalesce(proconfig && ARRAY['search_path=pg_catalog, pg_temp'], false)";
    let wrong: i64 = database.client().await.unwrap().query_one(paths, &[]).await.unwrap().get(0);
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn a_service_does_not_start_as_a_role_that_owns_something() {
    let database = TestDatabase::create().await.unwrap();
    let owner = database.client().await.unwrap();
    let role = format!("service_{}", Uuid::new_v4().simple());
    owner.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT connlog_query TO {role}")).await.unwrap();
    let store = |role: &str| Store::new(&StoreConfig::new(as_role(database.url(), role), "test", 1)).unwrap();
    for least in [roles::INGEST, roles::QUERY, roles::PURGE, &role] {
        schema::check_for_service(&store(least)).await.unwrap();
    }
    let refused = async || schema::check_for_service(&store(&role)).await.unwrap_err().to_string();
    owner.batch_execute(&format!("CREATE TABLE theirs (); ALTER TABLE theirs OWNER TO {role}")).await.unwrap();
    assert_eq!(
        refused().await,
        format!("the role {role} owns theirs, which no service should: use the role of the service")
    );
    owner.batch_execute(&format!("DROP TABLE theirs; GRANT connlog_owner TO {role}")).await.unwrap();
    assert!(refused().await.contains("may act as connlog_owner"));
    owner.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn a_database_with_tables_of_others_is_left_alone() {
    let database = TestDatabase::create().await.unwrap();
    let client = database.client().await.unwrap();
    client.batch_execute("CREATE TABLE app_users ()").await.unwrap();
    let refused = format!("{:#}", anyhow::Error::from(roles::set_up(&database.store().unwrap()).await.unwrap_err()));
    assert!(refused.contains("not connlog's: app_users"), "{refused}");
    let owner = "SELECT relowner = 'connlog_owner'::regrole FROM pg_class WHERE relname = 'app_users'";
    assert!(!client.query_one(owner, &[]).await.unwrap().get::<_, bool>(0));
}

const BEGIN: &str = "SELECT begin_compaction($1, $2)";
const INDEX: &str = "SELECT index_compacted($1, $2)";
const SWAP: &str = "SELECT swap_compacted($1, $2, '1s')";

/// Without this, the role of the purge puts an empty table in the place of a day, whatever the minimum retention.
#[tokio::test]
async fn the_role_of_the_purge_puts_nothing_but_the_whole_copy_in_the_place_of_a_day() {
    let database = TestDatabase::create().await.unwrap();
    let (owner, store, site) = (database.client().await.unwrap(), database.store().unwrap(), fixtures::site(1, 1));
    let old = now() - TimeDelta::days(5);
    write(&store, (1..=30).map(|number| fixtures::web(&site.agent, number, old, Method::Tunnel)).collect()).await;
    store.close_days(now()).await.unwrap();
    let day = old.date_naive();
    let purge = connect(&database.url_as(roles::PURGE)).await.unwrap();
    let (run, other) = (Uuid::new_v4(), Uuid::new_v4());
    let refused = async |sql: &str, run: Uuid, state: &str| {
        let error = purge.query(sql, &[&run, &day]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), state, "{sql}: {error}");
    };
    let done = async |sql: &str, run: Uuid| purge.query_one(sql, &[&run, &day]).await.unwrap().get::<_, bool>(0);
    let take = async |run: Uuid| purge.query("SELECT take_purge_lease($1)", &[&run]).await.unwrap();
    refused(BEGIN, run, "CL005").await;
    take(run).await;
    assert!(done(BEGIN, run).await);
    // Nothing is copied, or half.
    for _ in 0..2 {
        refused(SWAP, run, "CL005").await;
        while done(INDEX, run).await {}
        refused(SWAP, run, "CL005").await;
        assert!(done(BEGIN, run).await);
        assert!(done("SELECT copy_compacted($1, $2, 7)", run).await);
    }
    // A run that was held up for so long that another took over does no more.
    owner.batch_execute("UPDATE purge_lease SET expires_at = '-infinity'").await.unwrap();
    take(other).await;
    assert!(done(BEGIN, other).await);
    for sql in ["SELECT copy_compacted($1, $2, 7)", INDEX, "SELECT apply_to_compacted($1, $2)", SWAP, BEGIN] {
        refused(sql, run, "CL005").await;
    }
    // A copy that lacks what is counted stays out, too.
    while done("SELECT copy_compacted($1, $2, 7)", other).await {}
    while done(INDEX, other).await {}
    owner.batch_execute("UPDATE connection_log_counts SET entries = entries + 1").await.unwrap();
    refused(SWAP, other, "CL004").await;
    owner.batch_execute("UPDATE connection_log_counts SET entries = entries - 1").await.unwrap();
    assert!(done(SWAP, other).await);
    let rows: i64 = owner.query_one("SELECT count(*) FROM connection_logs", &[]).await.unwrap().get(0);
    assert_eq!(rows, 30);
}

/// Closing by somebody who collected nothing takes longer, and hides nothing.
#[tokio::test]
async fn days_that_are_closed_without_their_open_rows_are_listed_all_the_same() {
    let database = TestDatabase::create().await.unwrap();
    let (owner, store, site) = (database.client().await.unwrap(), database.store().unwrap(), fixtures::site(1, 1));
    owner
        .batch_execute("UPDATE floor SET closed_before = date_trunc('day', now() - interval '9 days', 'UTC')")
        .await
        .unwrap();
    write(&store, vec![fixtures::connect(&site.agent, 1, now() - TimeDelta::days(5))]).await;
    let purge = connect(&database.url_as(roles::PURGE)).await.unwrap();
    purge.batch_execute("SELECT close_days(now(), pg_current_snapshot(), '{}')").await.unwrap();
    let listed: i64 = owner.query_one("SELECT count(*) FROM ongoing", &[]).await.unwrap().get(0);
    assert_eq!(listed, 1);
}
