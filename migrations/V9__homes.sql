-- History names where a connection was by one number of eight bytes in place of the ids of owner and workspace: 27 bytes a row less.
-- Rewrites all history, a day after the other, during which nobody reads or writes the log: some 95 s
-- at 10 M rows, and as much disk again as the log takes until version 10, which drops what there was before. One transaction holds a
-- lock for each index of each day: hence a version of its own for dropping, and the check below.

-- Everything at once and before any of the work, in the order in which searches and writers come to them: a deadlock costs a second then, and
-- not all that was done.
LOCK TABLE workspaces, workspace_owners, open_connections, connection_logs IN ACCESS EXCLUSIVE MODE;

DO $$
DECLARE
    needed bigint := 20 * (SELECT count(*) FROM days());
    others bigint := current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint;
BEGIN
    IF needed > current_setting('max_locks_per_transaction')::bigint * others THEN
        RAISE EXCEPTION 'rewriting history takes some % locks, more than PostgreSQL is set to have', needed
            USING HINT = format('Set max_locks_per_transaction to %s at least, and restart PostgreSQL.', needed / others + 1);
    END IF;
END
$$;

CREATE FUNCTION home_of(organization_id uuid, workspace_owner_id uuid, workspace_id uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    AS $$
        SELECT ('x' || encode(substring(sha256(uuid_send(organization_id) || uuid_send(workspace_owner_id) || uuid_send(workspace_id))
            FROM 1 FOR 8), 'hex'))::bit(64)::bigint
    $$;
COMMENT ON FUNCTION home_of(uuid, uuid, uuid) IS 'The number of a home: the first eight bytes, big-endian, of the SHA-256 of the three ids. The programs compute the same (crates/model, Workspace::home).';

CREATE TABLE homes (
    home               bigint PRIMARY KEY,
    organization_id    uuid NOT NULL,
    workspace_owner_id uuid NOT NULL,
    workspace_id       uuid NOT NULL
);
COMMENT ON TABLE homes IS 'Where connections are at home: every owner and organization that a workspace ever had. Rows of the log keep that of their time. Nothing is ever removed.';
COMMENT ON COLUMN homes.home IS 'home_of(organization_id, workspace_owner_id, workspace_id).';
INSERT INTO homes (home, organization_id, workspace_owner_id, workspace_id)
SELECT home_of(organization_id, owner_id, workspace_id), organization_id, owner_id, workspace_id FROM (
    SELECT organization_id, owner_id, workspace_id FROM workspace_owners
    UNION SELECT organization_id, workspace_owner_id, workspace_id FROM connection_logs
    UNION SELECT organization_id, workspace_owner_id, workspace_id FROM open_connections) AS known;
CREATE INDEX homes_workspace ON homes (workspace_id);
COMMENT ON INDEX homes_workspace IS 'The filters workspace and workspace_id.';
CREATE INDEX homes_owner ON homes (workspace_owner_id);
COMMENT ON INDEX homes_owner IS 'The filters workspace_owner and workspace_owner_email.';
ANALYZE homes;

CREATE FUNCTION note_home(organization_id uuid, workspace_owner_id uuid, workspace_id uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
    DECLARE
        noted bigint := home_of(organization_id, workspace_owner_id, workspace_id);
        known homes;
    BEGIN
        INSERT INTO homes VALUES (noted, organization_id, workspace_owner_id, workspace_id) ON CONFLICT (home) DO NOTHING;
        SELECT * INTO STRICT known FROM homes WHERE homes.home = noted;
        -- Once in some ten million fleets of a million workspaces.
        IF known IS DISTINCT FROM ROW (noted, organization_id, workspace_owner_id, workspace_id)::homes THEN
            RAISE EXCEPTION 'two homes have the number %', noted USING ERRCODE = 'unique_violation';
        END IF;
    END
    $$;
COMMENT ON FUNCTION note_home(uuid, uuid, uuid) IS 'Adds a home, unless it is known.';
REVOKE EXECUTE ON FUNCTION note_home(uuid, uuid, uuid) FROM PUBLIC;

DROP TRIGGER workspaces_owner ON workspaces;
DROP FUNCTION note_owner();
DROP TABLE workspace_owners;
CREATE FUNCTION note_home_of_workspace() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
    BEGIN
        PERFORM note_home(NEW.organization_id, NEW.owner_id, NEW.id);
        RETURN NULL;
    END
    $$;
COMMENT ON FUNCTION note_home_of_workspace() IS 'Keeps homes. A trigger, so that no program can forget it: what is missing there is not found.';
CREATE TRIGGER workspaces_home AFTER INSERT OR UPDATE OF organization_id, owner_id ON workspaces
    FOR EACH ROW EXECUTE FUNCTION note_home_of_workspace();

CREATE INDEX connection_log_counts_organization ON connection_log_counts (organization_id);
COMMENT ON INDEX connection_log_counts_organization IS 'Counts of an organization, and of tokens limited to organizations.';

ALTER TABLE open_connections
    ALTER COLUMN workspace_id TYPE bigint USING home_of(organization_id, workspace_owner_id, workspace_id);
ALTER TABLE open_connections DROP COLUMN workspace_owner_id;
ALTER TABLE open_connections RENAME COLUMN workspace_id TO home;
COMMENT ON COLUMN open_connections.home IS 'See connection_logs.home.';
ALTER INDEX open_connections_workspace RENAME TO open_connections_home;
COMMENT ON INDEX open_connections_home IS 'The filters workspace_owner, workspace_owner_email, workspace and workspace_id, and closing what a deleted workspace had open.';

ALTER TABLE connection_logs RENAME TO connection_logs_before_9;
CREATE TABLE connection_logs (
    connect_time        timestamptz NOT NULL,
    disconnect_time     timestamptz,
    changed_xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    home                bigint NOT NULL,
    rx_bytes            bigint,
    tx_bytes            bigint,
    code                integer,
    method              smallint NOT NULL,
    disconnect_inferred boolean NOT NULL,
    id                  uuid NOT NULL,
    organization_id     uuid NOT NULL,
    connection_id       uuid,
    user_id             uuid,
    client_session_id   uuid,
    workspace_name      text NOT NULL,
    agent_name          text NOT NULL,
    app_name            text,
    ip                  inet,
    disconnect_reason   text,
    user_agent          text,
    slug_or_port        text,
    attribute_ranks     bytea
) PARTITION BY RANGE (connect_time);

DO $$
DECLARE
    comment text;
    day_name text;
    earlier text;
    day_of date;
    options text;
BEGIN
    FOR comment IN
        SELECT format('COMMENT ON TABLE connection_logs IS %L', obj_description('connection_logs_before_9'::regclass, 'pg_class'))
        UNION ALL
        SELECT format('COMMENT ON COLUMN connection_logs.%I IS %L', attname, col_description(attrelid, attnum))
        FROM pg_attribute WHERE attrelid = 'connection_logs_before_9'::regclass AND attnum > 0 AND NOT attisdropped
            AND col_description(attrelid, attnum) IS NOT NULL
    LOOP
        EXECUTE comment;
    END LOOP;
    COMMENT ON COLUMN connection_logs.home IS 'Where it was: a row of homes, for the owner and the workspace.';
    -- The names of its indexes are needed.
    FOR day_name IN
        SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = 'connection_logs_before_9'::regclass
    LOOP
        EXECUTE format('ALTER INDEX %I RENAME TO %I', day_name, day_name || '_before_9');
    END LOOP;

    FOR day_name, options IN
        SELECT relname, array_to_string(reloptions, ', ') FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'connection_logs_before_9'::regclass ORDER BY relname
    LOOP
        earlier := day_name || '_before_9';
        day_of := to_date(right(day_name, 8), 'YYYYMMDD');
        EXECUTE format('ALTER TABLE %I RENAME TO %I', day_name, earlier);
        EXECUTE format('CREATE TABLE %I (LIKE connection_logs INCLUDING ALL)', day_name);
        IF options IS NOT NULL THEN
            EXECUTE format('ALTER TABLE %I SET (%s)', day_name, options);
        END IF;
        EXECUTE format('INSERT INTO %I (connect_time, disconnect_time, changed_xid, home, rx_bytes, tx_bytes, code, method,
                disconnect_inferred, id, organization_id, connection_id, user_id, client_session_id, workspace_name, agent_name, app_name, ip,
                disconnect_reason, user_agent, slug_or_port, attribute_ranks)
            SELECT connect_time, disconnect_time, changed_xid, homes.home, rx_bytes, tx_bytes, code, method,
                disconnect_inferred, id, organization_id, connection_id, user_id, client_session_id, workspace_name, agent_name, app_name, ip,
                disconnect_reason, user_agent, slug_or_port, attribute_ranks
            FROM %I JOIN homes USING (organization_id, workspace_owner_id, workspace_id)', day_name, earlier);
        EXECUTE format('ALTER INDEX %I RENAME TO %I', day_name || '_event_id', earlier || '_event_id');
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id) WHERE method >= 3', day_name || '_event_id', day_name);
        EXECUTE format('COMMENT ON INDEX %I IS %L', day_name || '_event_id', 'The idempotence of web events; one entry of the API.');
        EXECUTE format('ALTER TABLE connection_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', day_name,
            day_of::timestamp AT TIME ZONE 'UTC', (day_of + 1)::timestamp AT TIME ZONE 'UTC');
    END LOOP;
END
$$;

CREATE INDEX connection_logs_session_id ON connection_logs (uuid_hash_extended(id, 0)) WHERE disconnect_time IS NOT NULL;
COMMENT ON INDEX connection_logs_session_id IS 'The write path''s look-up of connections to agents; one entry of the API.';
CREATE INDEX connection_logs_connect_time ON connection_logs (connect_time);
COMMENT ON INDEX connection_logs_connect_time IS 'Pages, newest first, and trimming the boundary day.';
CREATE INDEX connection_logs_home ON connection_logs (organization_id, home);
COMMENT ON INDEX connection_logs_home IS 'The filters organization, workspace_owner, workspace_owner_email, workspace and workspace_id, and tokens limited to organizations. homes has the numbers of an owner or a workspace.';
CREATE INDEX connection_logs_user ON connection_logs (user_id) WHERE user_id IS NOT NULL;
COMMENT ON INDEX connection_logs_user IS 'The filters username and user_email.';
CREATE INDEX connection_logs_connection ON connection_logs (uuid_hash_extended(connection_id, 0)) WHERE connection_id IS NOT NULL;
COMMENT ON INDEX connection_logs_connection IS 'The filter connection_id.';
CREATE INDEX connection_logs_changed ON connection_logs (changed_xid);
COMMENT ON INDEX connection_logs_changed IS 'The change feed. The rows of a batch share one key, so an entry takes a few bytes.';
CREATE INDEX connection_logs_kind ON connection_logs (method, app_name);
COMMENT ON INDEX connection_logs_kind IS 'The filters method, type and app, where they match little.';
ANALYZE open_connections, connection_logs;
DO $$
DECLARE
    comment text;
BEGIN
    -- As they have that are made with their day.
    FOR comment IN
        SELECT format('COMMENT ON INDEX %s IS %L', inhrelid::regclass, obj_description(inhparent, 'pg_class'))
        FROM pg_inherits JOIN pg_index ON indexrelid = inhparent WHERE indrelid = 'connection_logs'::regclass
    LOOP
        EXECUTE comment;
    END LOOP;
END
$$;

DROP FUNCTION take_inferred(uuid[], timestamptz, timestamptz);
CREATE FUNCTION take_inferred(ids uuid[], earliest timestamptz, latest timestamptz) RETURNS SETOF connection_logs
    LANGUAGE sql SECURITY DEFINER ROWS 10
    SET search_path = public, pg_temp
    AS $$
        DELETE FROM connection_logs
        WHERE uuid_hash_extended(id, 0) = ANY (ARRAY(SELECT uuid_hash_extended(wanted, 0) FROM unnest(ids) AS wanted))
            AND id = ANY (ids) AND disconnect_time IS NOT NULL AND connect_time >= earliest AND connect_time < latest AND disconnect_inferred
        RETURNING *
    $$;
COMMENT ON FUNCTION take_inferred(uuid[], timestamptz, timestamptz) IS 'Takes rows whose end was inferred out of history, so that they can be open again. Rows with a real end stay.';
REVOKE EXECUTE ON FUNCTION take_inferred(uuid[], timestamptz, timestamptz) FROM PUBLIC;
