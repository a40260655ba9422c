-- The schema of connlog. The decisions behind it, and what each table promises, are in README.md beside this file.

---------------------------------------------------------------------------------------------------- directory

CREATE TABLE organizations (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,
    name_key     text NOT NULL,
    display_name text NOT NULL,
    icon         text NOT NULL,
    deleted      boolean NOT NULL
);
COMMENT ON TABLE organizations IS 'Organizations as a control plane last told. Never deleted, only marked: history refers to them.';
COMMENT ON COLUMN organizations.name_key IS 'The name in lower case, by the rules of the programs: those of the database depend on its locale.';
CREATE INDEX organizations_name ON organizations (name_key);
COMMENT ON INDEX organizations_name IS 'The filter organization:NAME.';

CREATE TABLE users (
    id           uuid PRIMARY KEY,
    username     text NOT NULL,
    username_key text NOT NULL,
    email        text NOT NULL,
    email_key    text NOT NULL,
    name         text NOT NULL,
    avatar_url   text NOT NULL,
    status       text NOT NULL,
    login_type   text NOT NULL,
    deleted      boolean NOT NULL,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL
);
COMMENT ON TABLE users IS 'Users as a control plane last told. Deleted ones stay, but no longer match by name.';
COMMENT ON COLUMN users.username_key IS 'The username in lower case, see organizations.name_key.';
COMMENT ON COLUMN users.email_key IS 'The email in lower case, see organizations.name_key.';
CREATE INDEX users_username ON users (username_key);
COMMENT ON INDEX users_username IS 'The filters workspace_owner:NAME and username:NAME.';
CREATE INDEX users_email ON users (email_key);
COMMENT ON INDEX users_email IS 'The filters workspace_owner_email:EMAIL and user_email:EMAIL.';

CREATE TABLE workspaces (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    owner_id        uuid NOT NULL,
    name            text NOT NULL,
    deleted         boolean NOT NULL,
    deleted_at      timestamptz
);
COMMENT ON TABLE workspaces IS 'Workspaces as a control plane last told.';
COMMENT ON COLUMN workspaces.deleted_at IS 'When it was first told to be deleted: the inferred end of what it had open.';

CREATE TABLE workspace_agents (
    id           uuid PRIMARY KEY,
    workspace_id uuid NOT NULL,
    name         text NOT NULL,
    deleted      boolean NOT NULL,
    deleted_at   timestamptz
);
COMMENT ON TABLE workspace_agents IS 'Agents of workspaces as a control plane last told.';
CREATE INDEX workspace_agents_workspace ON workspace_agents (workspace_id);
COMMENT ON INDEX workspace_agents_workspace IS 'An event that a reporter files under a workspace and the name of an agent.';

CREATE TABLE agent_tokens (
    sha256     bytea PRIMARY KEY,
    agent_id   uuid NOT NULL,
    expires_at timestamptz
);
COMMENT ON TABLE agent_tokens IS 'Credentials of agents: the SHA-256 of each token.';
COMMENT ON COLUMN agent_tokens.expires_at IS '24 h after the token was replaced, or its agent or workspace deleted, so that a spool can drain.';
CREATE INDEX agent_tokens_agent ON agent_tokens (agent_id);
COMMENT ON INDEX agent_tokens_agent IS 'Expiring the earlier tokens of an agent.';

CREATE TABLE api_tokens (
    id            uuid PRIMARY KEY,
    sha256        bytea NOT NULL,
    role          text NOT NULL CHECK (role IN ('auditor', 'reporter', 'admin')),
    user_id       uuid,
    organizations uuid[],
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz,
    revoked_at    timestamptz
);
COMMENT ON TABLE api_tokens IS 'Credentials of auditors, reporters and administrators: the SHA-256 of each token.';
COMMENT ON COLUMN api_tokens.user_id IS 'Whom `me` means; NULL for a token without a user.';
COMMENT ON COLUMN api_tokens.organizations IS 'The only organizations whose entries the token reaches; NULL is all.';
CREATE INDEX api_tokens_sha256 ON api_tokens (sha256);
COMMENT ON INDEX api_tokens_sha256 IS 'Authentication.';

---------------------------------------------------------------------------------------------------- the log

CREATE TABLE open_connections (
    connect_time       timestamptz NOT NULL,
    changed_xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    method             smallint NOT NULL,
    id                 uuid PRIMARY KEY,
    organization_id    uuid NOT NULL,
    workspace_owner_id uuid NOT NULL,
    workspace_id       uuid NOT NULL,
    connection_id      uuid NOT NULL,
    agent_id           uuid,
    boot_id            uuid,
    user_id            uuid,
    client_session_id  uuid,
    workspace_name     text NOT NULL,
    agent_name         text NOT NULL,
    app_name           text,
    ip                 inet,
    attribute_ranks    bytea
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
COMMENT ON TABLE open_connections IS 'One row for each ongoing connection to an agent. Its primary key serializes all writers of a connection; a connection is here or in connection_logs, never in both.';
COMMENT ON COLUMN open_connections.agent_id IS 'The agent, if the directory knew it; what the sweep of lost agents goes by.';
COMMENT ON COLUMN open_connections.boot_id IS 'The boot of the agent that streamed it; nil if an earlier boot than its stream''s; NULL if it did not come over the agent''s own stream.';
COMMENT ON COLUMN open_connections.attribute_ranks IS 'See connection_logs.attribute_ranks.';
COMMENT ON COLUMN open_connections.changed_xid IS 'The transaction that last changed the row: its place in the change feed.';
CREATE INDEX open_connections_agent ON open_connections (agent_id);
COMMENT ON INDEX open_connections_agent IS 'Closing what a lost, restarted or deleted agent had open.';
CREATE INDEX open_connections_connect_time ON open_connections (connect_time);
COMMENT ON INDEX open_connections_connect_time IS 'Pages, newest first, and the retention of open rows.';
CREATE INDEX open_connections_workspace ON open_connections (workspace_id);
COMMENT ON INDEX open_connections_workspace IS 'The filter workspace_id:UUID, and closing what a deleted workspace had open.';

CREATE TABLE connection_logs (
    connect_time        timestamptz NOT NULL,
    disconnect_time     timestamptz,
    changed_xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    rx_bytes            bigint,
    tx_bytes            bigint,
    code                integer,
    method              smallint NOT NULL,
    disconnect_inferred boolean NOT NULL,
    id                  uuid NOT NULL,
    organization_id     uuid NOT NULL,
    workspace_owner_id  uuid NOT NULL,
    workspace_id        uuid NOT NULL,
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
COMMENT ON TABLE connection_logs IS 'History: completed connections to agents, and web events, which are points in time. A partition for each UTC day of connect_time.';
COMMENT ON COLUMN connection_logs.id IS 'Names the row: UUIDv5 of connection_id, workspace_id and agent_name for a connection to an agent, the reporter''s event_id for a web event.';
COMMENT ON COLUMN connection_logs.connect_time IS 'The earliest time at which the connection is known to have existed, or the time of the web event.';
COMMENT ON COLUMN connection_logs.disconnect_time IS 'When the connection ended; NULL for web events.';
COMMENT ON COLUMN connection_logs.changed_xid IS 'The transaction that last changed the row: its place in the change feed.';
COMMENT ON COLUMN connection_logs.rx_bytes IS 'Bytes received from the client, if its agent counted them.';
COMMENT ON COLUMN connection_logs.tx_bytes IS 'Bytes sent to the client, if its agent counted them.';
COMMENT ON COLUMN connection_logs.code IS 'Exit status of the session, or HTTP status of the web event; NULL if the end is inferred.';
COMMENT ON COLUMN connection_logs.method IS '1 ssh, 2 reconnecting_pty, 3 workspace_app, 4 port_forwarding, 5 tunnel.';
COMMENT ON COLUMN connection_logs.disconnect_inferred IS 'Whether connlog concluded the end (agent lost, restarted or deleted) rather than being told.';
COMMENT ON COLUMN connection_logs.user_id IS 'Who initiated it, if a reporter said so.';
COMMENT ON COLUMN connection_logs.app_name IS 'Normalized name of the client app; NULL if unknown, and for web events.';
COMMENT ON COLUMN connection_logs.attribute_ranks IS 'Five big-endian int64 that say from which events method, app_name, ip, client_session_id and user_id came (crates/model, Connection); NULL, the rule: all from a connect at connect_time.';
CREATE UNIQUE INDEX connection_logs_id ON connection_logs (id, connect_time);
COMMENT ON INDEX connection_logs_id IS 'The write path''s look-up by id; the idempotence of web events; one entry of the API.';
CREATE INDEX connection_logs_connect_time ON connection_logs (connect_time);
COMMENT ON INDEX connection_logs_connect_time IS 'Pages, newest first, and trimming the boundary day.';
CREATE INDEX connection_logs_organization ON connection_logs (organization_id);
COMMENT ON INDEX connection_logs_organization IS 'The filter organization, and tokens limited to organizations.';
CREATE INDEX connection_logs_workspace_owner ON connection_logs (workspace_owner_id);
COMMENT ON INDEX connection_logs_workspace_owner IS 'The filters workspace_owner and workspace_owner_email.';
CREATE INDEX connection_logs_workspace ON connection_logs (workspace_id);
COMMENT ON INDEX connection_logs_workspace IS 'The filter workspace_id.';
CREATE INDEX connection_logs_user ON connection_logs (user_id) WHERE user_id IS NOT NULL;
COMMENT ON INDEX connection_logs_user IS 'The filters username and user_email.';
CREATE INDEX connection_logs_connection ON connection_logs (connection_id) WHERE connection_id IS NOT NULL;
COMMENT ON INDEX connection_logs_connection IS 'The filter connection_id.';

CREATE TABLE connection_log_counts (
    day             date NOT NULL,
    organization_id uuid NOT NULL,
    method          smallint NOT NULL,
    app_name        text NOT NULL,
    shard           smallint NOT NULL,
    entries         bigint NOT NULL,
    PRIMARY KEY (day, organization_id, method, app_name, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE connection_log_counts IS 'How many rows connection_logs has, changed in the transactions that change it. Sums over the shards are exact in any snapshot; one shard alone may be negative.';
COMMENT ON COLUMN connection_log_counts.app_name IS 'Normalized name of the client app; empty if unknown.';
COMMENT ON COLUMN connection_log_counts.shard IS 'Which writer counted: writers of different shards do not wait for each other.';

---------------------------------------------------------------------------------------------------- delivery

CREATE TABLE agent_presence (
    agent_id      uuid NOT NULL,
    spool_id      uuid NOT NULL,
    boot_id       uuid NOT NULL,
    stream_id     uuid NOT NULL,
    committed_seq bigint,
    earlier_boot_seq bigint NOT NULL,
    last_seen_at  timestamptz NOT NULL,
    PRIMARY KEY (agent_id, spool_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE agent_presence IS 'What is known of each agent that streams: one row for each of its spools.';
COMMENT ON COLUMN agent_presence.boot_id IS 'The boot that last said Hello with this spool.';
COMMENT ON COLUMN agent_presence.earlier_boot_seq IS 'Events up to this sequence number were in the spool when the boot began, and may be of an earlier one.';
COMMENT ON COLUMN agent_presence.stream_id IS 'The stream that owns the spool now; an older one that finds another id here gives way.';
COMMENT ON COLUMN agent_presence.committed_seq IS 'Everything up to this sequence number of the spool is in the log, rejected, or recorded as lost; NULL until the first commit.';
COMMENT ON COLUMN agent_presence.last_seen_at IS 'The last sign of life, by the clock of the ingest that had it.';

CREATE TABLE ingest_attendance (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    heard_since timestamptz NOT NULL,
    attended_at timestamptz NOT NULL
);
COMMENT ON TABLE ingest_attendance IS 'Since when some ingest could have heard every agent without a break. Silence before that is an outage, not a death.';

CREATE TABLE rejected_events (
    id              uuid PRIMARY KEY,
    received_at     timestamptz NOT NULL,
    organization_id uuid,
    workspace_id    uuid,
    agent_id        uuid,
    token_id        uuid,
    spool_id        uuid,
    seq             bigint,
    message_type    text NOT NULL,
    message         bytea NOT NULL,
    field           text NOT NULL,
    reason          text NOT NULL
);
COMMENT ON TABLE rejected_events IS 'Dead letters: events that were well-formed but could not be accepted, as they were received.';
COMMENT ON COLUMN rejected_events.id IS 'UUIDv5 of the sender and the message, so that a replay is the same letter.';
COMMENT ON COLUMN rejected_events.token_id IS 'The reporter''s token; NULL if an agent sent it.';
COMMENT ON COLUMN rejected_events.message IS 'The protobuf message of type message_type.';
CREATE INDEX rejected_events_received_at ON rejected_events (received_at);
COMMENT ON INDEX rejected_events_received_at IS 'The gaps endpoint, and retention.';

CREATE TABLE lost_events (
    id              uuid PRIMARY KEY,
    recorded_at     timestamptz NOT NULL,
    organization_id uuid NOT NULL,
    workspace_id    uuid NOT NULL,
    agent_id        uuid NOT NULL,
    spool_id        uuid NOT NULL,
    first_seq       bigint NOT NULL,
    last_seq        bigint NOT NULL,
    events          bigint NOT NULL,
    since           timestamptz,
    until           timestamptz,
    cause           text NOT NULL
);
COMMENT ON TABLE lost_events IS 'Events that the log never got: told by the agent (a spool that overflowed), or found as a gap in its sequence numbers.';
COMMENT ON COLUMN lost_events.id IS 'UUIDv5 of agent, spool and last_seq, so that a replay is the same record.';
CREATE INDEX lost_events_recorded_at ON lost_events (recorded_at);
COMMENT ON INDEX lost_events_recorded_at IS 'The gaps endpoint, and retention.';

---------------------------------------------------------------------------------------------------- retention

CREATE TABLE retention_floor (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    cutoff timestamptz NOT NULL
);
INSERT INTO retention_floor (cutoff) VALUES ('-infinity');
COMMENT ON TABLE retention_floor IS 'What lies strictly before the cutoff has been, or is being, purged: ingest refuses it. Only ever raised.';

CREATE TABLE purge_runs (
    id            uuid PRIMARY KEY,
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz NOT NULL,
    cutoff        timestamptz NOT NULL,
    days_dropped  integer NOT NULL,
    rows_dropped  bigint NOT NULL,
    rows_trimmed  bigint NOT NULL,
    open_removed  bigint NOT NULL,
    rows_left     bigint NOT NULL,
    outcome       text NOT NULL CHECK (outcome IN ('complete', 'incomplete', 'interrupted')),
    error         text
);
COMMENT ON TABLE purge_runs IS 'Proof that retention ran: one row for each run of connlog-purge that had a cutoff.';
COMMENT ON COLUMN purge_runs.rows_left IS 'What was due and is still there when the run ended.';
CREATE INDEX purge_runs_started_at ON purge_runs (started_at);
COMMENT ON INDEX purge_runs_started_at IS 'The last runs, newest first.';

---------------------------------------------------------------------------------------------------- functions

-- Advisory locks of connlog: 0x636f6e6e ('conn') and one of
--   1  shared by every writer of the log, exclusive while purge raises the floor
--   2  attaching and dropping days
--   3  one purge at a time
--   4  one sweep of lost agents at a time

CREATE FUNCTION day_table(day date) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    AS $$ SELECT 'connection_logs_' || to_char(day, 'YYYYMMDD') $$;
COMMENT ON FUNCTION day_table(date) IS 'The name of the partition of a UTC day.';

CREATE FUNCTION days() RETURNS SETOF date
    LANGUAGE sql STABLE
    SET search_path = public, pg_catalog
    AS $$
        SELECT to_date(right(child.relname, 8), 'YYYYMMDD')
        FROM pg_inherits
        JOIN pg_class child ON child.oid = inhrelid
        WHERE inhparent = 'connection_logs'::regclass
        ORDER BY 1
    $$;
COMMENT ON FUNCTION days() IS 'The UTC days that have a partition, oldest first.';

CREATE FUNCTION attach_day(day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_catalog
    AS $$
    DECLARE
        partition_name text := day_table(day);
        utc_start timestamptz := day::timestamp AT TIME ZONE 'UTC';
        utc_end timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    BEGIN
        PERFORM pg_advisory_xact_lock(x'636f6e6e'::int, 2);
        IF to_regclass(partition_name) IS NOT NULL THEN
            RETURN false;
        END IF;
        IF utc_end <= (SELECT cutoff FROM retention_floor) THEN
            RAISE EXCEPTION 'day % lies below the retention floor', day USING ERRCODE = 'CL001';
        END IF;
        IF utc_start > statement_timestamp() + interval '2 days' OR utc_start < statement_timestamp() - interval '3660 days' THEN
            RAISE EXCEPTION 'day % is too far from the present', day USING ERRCODE = 'CL002';
        END IF;
        EXECUTE format('CREATE TABLE %I (LIKE connection_logs INCLUDING ALL)', partition_name);
        EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_insert_scale_factor = 0.5)', partition_name);
        EXECUTE format('ALTER TABLE connection_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            partition_name, utc_start, utc_end);
        RETURN true;
    END
    $$;
COMMENT ON FUNCTION attach_day(date) IS 'Makes the partition of a UTC day if it is missing, and says whether it did. A plain table is made and then attached: CREATE … PARTITION OF would lock out readers and deadlock two writers.';

CREATE FUNCTION drop_day(day date) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_catalog
    AS $$
    DECLARE
        partition_name text := day_table(day);
        rows_gone bigint;
    BEGIN
        PERFORM pg_advisory_xact_lock(x'636f6e6e'::int, 2);
        IF to_regclass(partition_name) IS NULL THEN
            RETURN 0;
        END IF;
        EXECUTE format('DROP TABLE %I', partition_name);
        WITH gone AS (DELETE FROM connection_log_counts counts WHERE counts.day = drop_day.day RETURNING entries)
        SELECT coalesce(sum(entries), 0) INTO rows_gone FROM gone;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION drop_day(date) IS 'Drops a UTC day with its counts, and says how many rows it had. The caller sets lock_timeout: the lock is exclusive.';

CREATE FUNCTION take_inferred(ids uuid[], earliest timestamptz, latest timestamptz) RETURNS SETOF connection_logs
    LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_catalog
    AS $$
        DELETE FROM connection_logs
        WHERE id = ANY (ids) AND connect_time >= earliest AND connect_time < latest AND disconnect_inferred
        RETURNING *
    $$;
COMMENT ON FUNCTION take_inferred(uuid[], timestamptz, timestamptz) IS 'Takes rows whose end was inferred out of history, so that they can be open again. Rows with a real end stay.';
