//! The roles of the services in PostgreSQL, each with the least rights that its work takes.
//!
//! `connlog_owner` owns everything and cannot log in. The others can, once an operator gives them a password or a
//! certificate; what they may do is below, and `tests/roles.rs` compares it with a committed matrix.

use tokio_postgres::Client;

use crate::{Store, StoreError};

/// Owns the tables and functions.
pub const OWNER: &str = "connlog_owner";
/// The role of `connlog-ingest`.
pub const INGEST: &str = "connlog_ingest";
/// The role of `connlog-query`.
pub const QUERY: &str = "connlog_query";
/// The role of `connlog-purge`.
pub const PURGE: &str = "connlog_purge";

/// Roles belong to the whole server: another database of it may have made them.
const CREATE: &str = "-- create_roles
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['connlog_owner', 'connlog_ingest', 'connlog_query', 'connlog_purge'] LOOP
        IF to_regrole(role_name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I %s', role_name, CASE role_name WHEN 'connlog_owner' THEN 'NOLOGIN' ELSE 'LOGIN' END);
        END IF;
    END LOOP;
    -- Whoever made a role is not yet able to act as it, from PostgreSQL 16 on.
    IF NOT pg_has_role('connlog_owner', 'USAGE') THEN
        GRANT connlog_owner TO CURRENT_USER;
    END IF;
END
$$";

/// Everything in the schema that a migration made: there is nothing else in a database of connlog's.
const OWN: &str = "-- own
DO $$
DECLARE
    object text;
BEGIN
    SELECT string_agg(relname, ', ') INTO object FROM pg_class c
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT IN (
        'organizations', 'users', 'workspaces', 'workspace_agents', 'agent_tokens', 'api_tokens', 'browser_sessions', 'browser_secrets', 'revocations', 'number_key', 'agents', 'agent_spools',
        'targets', 'connection_logs', 'ongoing', 'contradictions', 'changes', 'connection_log_counts', 'ingest_attendance',
        'rejected_events', 'lost_events', 'floor', 'purge_lease', 'compactions', 'purge_runs', 'api_audit', 'feed_consumers', 'refinery_schema_history')
        AND relname !~ '^compacted_[0-9]{8}$'
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e');
    IF object IS NOT NULL THEN
        RAISE EXCEPTION 'the database has tables that are not connlog''s: %', object
            USING HINT = 'connlog needs a database of its own';
    END IF;
    GRANT USAGE, CREATE ON SCHEMA public TO connlog_owner;
    -- A database from before PostgreSQL 15 lets everybody make tables, with the name of a day, say.
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    -- Nobody puts temporary objects in the way of functions that act with the rights of the owner.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    GRANT USAGE ON SCHEMA public TO connlog_ingest, connlog_query, connlog_purge;
    FOR object IN
        SELECT format('TABLE %s', oid::regclass) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relowner <> 'connlog_owner'::regrole
        UNION ALL
        SELECT format('FUNCTION %s', oid::regprocedure) FROM pg_proc p
        WHERE pronamespace = 'public'::regnamespace AND proowner <> 'connlog_owner'::regrole
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')
    LOOP
        EXECUTE format('ALTER %s OWNER TO connlog_owner', object);
    END LOOP;
END
$$";

/// From nothing: what an earlier version granted, and this one does not, is gone.
const GRANT: &str = "-- grant
DO $$
DECLARE
    object text;
BEGIN
    FOR object IN
        SELECT format('TABLE %s', oid::regclass) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relowner = 'connlog_owner'::regrole
        UNION ALL
        SELECT format('FUNCTION %s', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proowner = 'connlog_owner'::regrole
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, connlog_ingest, connlog_query, connlog_purge', object);
    END LOOP;
END
$$;
GRANT SELECT ON refinery_schema_history TO connlog_ingest, connlog_query, connlog_purge;
GRANT EXECUTE ON FUNCTION day_table(date), start_of(date), days() TO connlog_ingest, connlog_query, connlog_purge;

GRANT SELECT, INSERT, UPDATE ON organizations, users, workspaces, workspace_agents, agent_tokens TO connlog_ingest;
GRANT SELECT ON api_tokens, revocations, number_key, floor, feed_consumers TO connlog_ingest;
GRANT SELECT, INSERT, UPDATE (open_since) ON agents TO connlog_ingest;
GRANT SELECT, INSERT, UPDATE ON agent_spools TO connlog_ingest;
GRANT SELECT, INSERT ON targets, connection_logs, changes, rejected_events, contradictions TO connlog_ingest;
GRANT UPDATE (events, spool_id, seq) ON rejected_events TO connlog_ingest;
GRANT SELECT, INSERT, UPDATE (boot), DELETE ON ongoing TO connlog_ingest;
GRANT SELECT, INSERT, UPDATE ON connection_log_counts, ingest_attendance, lost_events TO connlog_ingest;
GRANT EXECUTE ON FUNCTION attach_day(date), take_unknown_starts(date, uuid[]), close_days(timestamptz, pg_snapshot, uuid[]),
    unattached_days(), trim_changes(timestamptz, bigint), restart_feed() TO connlog_ingest;

GRANT SELECT ON organizations, users, workspaces, workspace_agents, api_tokens, revocations TO connlog_query;
GRANT SELECT ON agents, agent_spools, targets, connection_logs, ongoing, changes, connection_log_counts, feed_consumers TO connlog_query;
GRANT SELECT ON rejected_events, lost_events, contradictions, ingest_attendance, floor, purge_runs TO connlog_query;
GRANT SELECT, INSERT ON api_audit TO connlog_query;
GRANT SELECT, INSERT, UPDATE, DELETE ON browser_sessions, browser_secrets TO connlog_query;
GRANT EXECUTE ON FUNCTION end_uses(uuid[], bigint[], boolean[]), note_read(text, uuid, uuid), uncompacted_days() TO connlog_query;

GRANT SELECT ON connection_logs, ongoing, targets, connection_log_counts, agent_spools, ingest_attendance TO connlog_purge;
GRANT SELECT (received_at) ON rejected_events TO connlog_purge;
GRANT SELECT (recorded_at) ON lost_events TO connlog_purge;
GRANT SELECT (at) ON api_audit TO connlog_purge;
GRANT SELECT (connect_time) ON contradictions TO connlog_purge;
GRANT SELECT ON floor TO connlog_purge;
GRANT SELECT, INSERT ON purge_runs TO connlog_purge;
GRANT EXECUTE ON FUNCTION attach_day(date), close_days(timestamptz, pg_snapshot, uuid[]), take_purge_lease(uuid), give_purge_lease(uuid),
    drop_day(date, text), trim_day(date, timestamptz, bigint), raise_floor(timestamptz, double precision),
    due_open(timestamptz, timestamptz), remove_open(timestamptz, timestamptz, bigint), remove_records(text, timestamptz, bigint),
    purge_bound(), unattached_days(), uncompacted_days(), begin_compaction(uuid, date), copy_compacted(uuid, date, bigint),
    index_compacted(uuid, date), apply_to_compacted(uuid, date), swap_compacted(uuid, date, text) TO connlog_purge;

DO $$
DECLARE
    day_name text;
BEGIN
    FOR day_name IN SELECT day_table(day) FROM days() AS day LOOP
        PERFORM grant_day(day_name);
    END LOOP;
END
$$";

/// Whether this database is set up with roles: then a migration has to be made by the owner.
const OWNED: &str = "-- is_owned
SELECT coalesce((SELECT relowner = to_regrole('connlog_owner') FROM pg_class WHERE oid = to_regclass('public.connection_logs')), false)";

/// Makes the roles, gives everything to the owner, and each service its rights. Doing it again changes nothing. The caller's
/// role must be allowed to make roles.
pub async fn set_up(store: &Store) -> Result<(), StoreError> {
    let client = store.client().await?;
    client.batch_execute(CREATE).await?;
    in_one_transaction(&client, &[OWN, GRANT]).await
}

/// What the role of a connection owns in the schema, and whether it may act as the owner of everything.
const POWERS: &str = "-- powers_of_role
SELECT rolname::text AS role, rolsuper, pg_has_role(oid, 'connlog_owner', 'MEMBER') AS is_owner, ARRAY(
    SELECT relname::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relowner = me.oid AND relkind IN ('r', 'p', 'v', 'm', 'S')
    UNION ALL
    SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner = me.oid
    ORDER BY 1 LIMIT 3) AS owned
FROM pg_roles AS me WHERE rolname = current_user";

/// Refuses a service whose role may do what no service may: it owns something, or may act as the owner. Where no roles were set
/// up there is one role for everything. A superuser is only warned of: whoever gives it has decided.
pub(crate) async fn check_service(store: &Store) -> Result<(), StoreError> {
    let client = store.client().await?;
    if !client.query_one(OWNED, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(());
    }
    let row = client.query_one(POWERS, &[]).await?;
    let (role, owned): (String, Vec<String>) = (row.try_get("role")?, row.try_get("owned")?);
    if row.try_get("rolsuper")? {
        tracing::warn!(
            role,
            "the service runs as a superuser: it has a role of its own, see `connlogctl migrate --roles`"
        );
        return Ok(());
    }
    let what = match owned.first() {
        Some(object) => format!("owns {object}"),
        None if row.try_get("is_owner")? => format!("may act as {OWNER}"),
        None => return Ok(()),
    };
    Err(StoreError::TooPowerful { role, what })
}

/// Becomes the owner, if there is one, so that what a migration makes belongs to it. Returns whether there is.
pub(crate) async fn become_owner(client: &Client) -> Result<bool, StoreError> {
    let owned: bool = client.query_one(OWNED, &[]).await?.try_get(0)?;
    if owned {
        client.batch_execute("-- become_owner\nSET ROLE connlog_owner").await?;
    }
    Ok(owned)
}

/// Gives each service its rights to what a migration made.
pub(crate) async fn grant(client: &Client) -> Result<(), StoreError> {
    in_one_transaction(client, &[GRANT]).await
}

async fn in_one_transaction(client: &Client, statements: &[&str]) -> Result<(), StoreError> {
    let sql = format!("BEGIN;\n{};\nCOMMIT", statements.join(";\n"));
    let outcome = client.batch_execute(&sql).await;
    if outcome.is_err() {
        client.batch_execute("-- rollback\nROLLBACK").await?;
    }
    Ok(outcome?)
}
