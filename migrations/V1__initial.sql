-- The schema of connlog. The decisions behind it are in README.md beside this file, and in crates/store/README.md.
--
-- Functions name every object with its schema and search nothing but pg_catalog: some act with the rights of the owner.

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
    name_key        text NOT NULL,
    deleted         boolean NOT NULL,
    deleted_at      timestamptz
);
COMMENT ON TABLE workspaces IS 'Workspaces as a control plane last told.';
COMMENT ON COLUMN workspaces.name_key IS 'The name in lower case, see organizations.name_key.';
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
    expires_at timestamptz,
    revoked_at timestamptz
);
COMMENT ON TABLE agent_tokens IS 'Credentials of agents: the SHA-256 of each token.';
COMMENT ON COLUMN agent_tokens.expires_at IS '24 h after the token was replaced, or its agent or workspace deleted, so that a spool can drain.';
COMMENT ON COLUMN agent_tokens.revoked_at IS 'From then on it is not accepted, whatever a directory says of it later.';
CREATE INDEX agent_tokens_agent ON agent_tokens (agent_id);
COMMENT ON INDEX agent_tokens_agent IS 'Expiring the earlier tokens of an agent, and revoking all of them.';

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

CREATE TABLE browser_sessions (
    id         uuid PRIMARY KEY,
    token_id   uuid NOT NULL REFERENCES api_tokens,
    started_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ip         inet NOT NULL,
    user_agent text NOT NULL CHECK (length(user_agent) <= 300)
);
COMMENT ON TABLE browser_sessions IS 'Sessions of the dashboard that go on (crates/store, browser.rs).';
COMMENT ON COLUMN browser_sessions.token_id IS 'The token that signed in: the session may do what it may, and ends with it.';
COMMENT ON COLUMN browser_sessions.seen_at IS 'When the session was used last, to a minute.';
COMMENT ON COLUMN browser_sessions.expires_at IS 'When it ends, however much it is used.';
COMMENT ON COLUMN browser_sessions.ip IS 'From where somebody signed in.';
COMMENT ON COLUMN browser_sessions.user_agent IS 'With what, as the browser said.';
CREATE INDEX browser_sessions_token ON browser_sessions (token_id);
COMMENT ON INDEX browser_sessions_token IS 'The list of a user, and how many a token has.';

CREATE TABLE browser_secrets (
    sha256     bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES browser_sessions ON DELETE CASCADE,
    made_at    timestamptz NOT NULL,
    seen_at    timestamptz
);
COMMENT ON TABLE browser_secrets IS 'Secrets in cookies of the dashboard: the newest of each session, and those that it replaced within a day.';
COMMENT ON COLUMN browser_secrets.seen_at IS 'When it was first seen; NULL until then. A minute after that, those made before it are no longer good.';
CREATE INDEX browser_secrets_session ON browser_secrets (session_id, made_at);
COMMENT ON INDEX browser_secrets_session IS 'Newer secrets of a session, and ending it.';

CREATE TABLE revocations (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL
);
INSERT INTO revocations (version) VALUES (0);
COMMENT ON TABLE revocations IS 'What services ask for every few seconds: once it is another number, they look up the tokens of all calls that go on.';
COMMENT ON COLUMN revocations.version IS 'How often tokens were revoked.';

---------------------------------------------------------------------------------------------------- the log

CREATE TABLE number_key (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key bytea NOT NULL CHECK (length(key) = 32)
);
INSERT INTO number_key (key) VALUES (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
COMMENT ON TABLE number_key IS 'The secret under which agents and targets are numbered: without it nobody finds two names with one number.';
COMMENT ON COLUMN number_key.key IS 'Key of an HMAC-SHA256. Changing it gives every agent and target a second number.';

CREATE TABLE agents (
    agent        bigint PRIMARY KEY,
    workspace_id uuid NOT NULL,
    agent_name   text NOT NULL,
    open_since   timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE agents IS 'One row for each agent of a workspace, and the lock of the log: whoever writes connections of an agent holds its row.';
COMMENT ON COLUMN agents.agent IS 'The first eight bytes of the HMAC of workspace and name (crates/store, numbers.rs).';
COMMENT ON COLUMN agents.open_since IS 'What is open of the agent began at this time or later; NULL if nothing is. Lowered with each connection that is left open, raised when somebody looks.';
CREATE INDEX agents_open ON agents (agent) WHERE open_since IS NOT NULL;
COMMENT ON INDEX agents_open IS 'The sweep of silent and deleted agents.';
CREATE INDEX agents_workspace ON agents (workspace_id);
COMMENT ON INDEX agents_workspace IS 'Closing what a deleted workspace had open.';

CREATE TABLE agent_spools (
    agent            bigint NOT NULL,
    spool_id         uuid NOT NULL,
    agent_id         uuid,
    boot_id          uuid NOT NULL,
    stream_id        uuid NOT NULL,
    committed_seq    bigint,
    earlier_boot_seq bigint NOT NULL,
    last_seen_at     timestamptz NOT NULL,
    unclosed_since   timestamptz,
    PRIMARY KEY (agent, spool_id)
) WITH (fillfactor = 50);
COMMENT ON TABLE agent_spools IS 'What is known of each spool of an agent that streams, and of each reporter that speaks for an agent. Changed under the lock of the agent.';
COMMENT ON COLUMN agent_spools.agent_id IS 'The agent of the directory that said Hello with it, or that a reporter speaks for: then spool_id and stream_id are the id of the reporter''s token.';
COMMENT ON COLUMN agent_spools.boot_id IS 'The boot that last said Hello with it.';
COMMENT ON COLUMN agent_spools.stream_id IS 'The stream that owns it now; an older one that finds another id here gives way.';
COMMENT ON COLUMN agent_spools.committed_seq IS 'Everything up to this sequence number is in the log, rejected, or recorded as lost; NULL until the first commit.';
COMMENT ON COLUMN agent_spools.earlier_boot_seq IS 'Events up to this sequence number were in the spool when the boot began, and may be of an earlier one.';
COMMENT ON COLUMN agent_spools.last_seen_at IS 'The last sign of life, by the clock of the ingest that had it.';
COMMENT ON COLUMN agent_spools.unclosed_since IS 'The last sign of life of the boot before, until what it left open is closed.';

CREATE TABLE targets (
    target             bigint PRIMARY KEY,
    agent              bigint NOT NULL,
    organization_id    uuid NOT NULL,
    owner_id           uuid NOT NULL,
    workspace_id       uuid NOT NULL,
    workspace_name     text NOT NULL,
    workspace_name_key text NOT NULL,
    agent_name         text NOT NULL
);
COMMENT ON TABLE targets IS 'Where connections went, as it was at the time: organization, owner, workspace, names. Rows of the log refer to it. Never changed, never removed.';
COMMENT ON COLUMN targets.target IS 'The first eight bytes of the HMAC of the other columns (crates/store, numbers.rs).';
COMMENT ON COLUMN targets.agent IS 'The agent: agents.agent.';
COMMENT ON COLUMN targets.workspace_name_key IS 'The name in lower case, see organizations.name_key.';
CREATE INDEX targets_agent ON targets (agent);
COMMENT ON INDEX targets_agent IS 'What an agent has open.';
CREATE INDEX targets_organization ON targets (organization_id);
COMMENT ON INDEX targets_organization IS 'The filter organization, and tokens limited to organizations.';
CREATE INDEX targets_owner ON targets (owner_id);
COMMENT ON INDEX targets_owner IS 'The filters workspace_owner and workspace_owner_email.';
CREATE INDEX targets_workspace ON targets (workspace_id);
COMMENT ON INDEX targets_workspace IS 'The filter workspace_id.';
CREATE INDEX targets_workspace_name ON targets (workspace_name_key);
COMMENT ON INDEX targets_workspace_name IS 'The filter workspace.';

CREATE TABLE connection_logs (
    connect_time        timestamptz NOT NULL,
    received_at         timestamptz NOT NULL,
    target              bigint NOT NULL,
    method              smallint NOT NULL CHECK (method BETWEEN 1 AND 5),
    start_source        smallint CHECK (start_source IN (0, 1)),
    method_known        boolean NOT NULL,
    disconnect_inferred boolean NOT NULL DEFAULT false,
    id                  uuid NOT NULL,
    connection_id       uuid,
    client_session_id   uuid,
    user_id             uuid,
    boot                integer,
    app_name            text,
    ip                  inet,
    client_ip           inet,
    user_agent          text,
    slug_or_port        text,
    disconnect_reason   text,
    code                integer,
    disconnect_time     timestamptz,
    ended_received_at   timestamptz,
    rx_bytes            bigint,
    tx_bytes            bigint
) PARTITION BY RANGE (connect_time);
COMMENT ON TABLE connection_logs IS 'The log: one row for each connection to an agent, from its first event to its end, and one for each web event, a point in time. A partition for each UTC day of connect_time.';
COMMENT ON COLUMN connection_logs.connect_time IS 'When it began; if nobody said so (start_source is NULL), the time of its first event.';
COMMENT ON COLUMN connection_logs.received_at IS 'When ingest got the first event about it, by the clock of ingest.';
COMMENT ON COLUMN connection_logs.target IS 'Where it went: a row of targets.';
COMMENT ON COLUMN connection_logs.method IS '1 ssh, 2 reconnecting_pty, 3 workspace_app, 4 port_forwarding, 5 tunnel.';
COMMENT ON COLUMN connection_logs.start_source IS 'Who said when it began: 0 the agent, 1 a reporter; NULL if nobody did.';
COMMENT ON COLUMN connection_logs.method_known IS 'Whether an event said how it came; if not, method is 1 until one does.';
COMMENT ON COLUMN connection_logs.disconnect_inferred IS 'Whether connlog concluded the end (agent lost, restarted or deleted) rather than being told.';
COMMENT ON COLUMN connection_logs.id IS 'Names the row: UUIDv5 of connection_id, workspace_id and agent_name for a connection to an agent, of workspace_id and event_id for a web event.';
COMMENT ON COLUMN connection_logs.connection_id IS 'The id that the agent gave the connection; of a web event the connection that it is part of, if any.';
COMMENT ON COLUMN connection_logs.client_session_id IS 'The client''s own id of its session, if it has one.';
COMMENT ON COLUMN connection_logs.user_id IS 'Who initiated it, if a reporter said so.';
COMMENT ON COLUMN connection_logs.boot IS 'While it is open: the boot of the agent that streamed it (crates/model, BootNumber); 0 if an earlier boot than its stream''s; NULL if nobody said so.';
COMMENT ON COLUMN connection_logs.app_name IS 'Normalized name of the client app; NULL if unknown, and for web events.';
COMMENT ON COLUMN connection_logs.ip IS 'Address of the client, if known.';
COMMENT ON COLUMN connection_logs.client_ip IS 'Public address of the client of a session that came through a tunnel, if known.';
COMMENT ON COLUMN connection_logs.user_agent IS 'The client''s user agent; of web events only.';
COMMENT ON COLUMN connection_logs.slug_or_port IS 'Slug of the app, or number of the port; of web events only.';
COMMENT ON COLUMN connection_logs.disconnect_reason IS 'Why it ended, in words, if said.';
COMMENT ON COLUMN connection_logs.code IS 'Exit status of the session, or HTTP status of the web event; NULL if the end is inferred.';
COMMENT ON COLUMN connection_logs.disconnect_time IS 'When the connection ended; NULL while it is open, and for web events.';
COMMENT ON COLUMN connection_logs.ended_received_at IS 'When ingest got the end, by the clock of ingest; NULL if the end is inferred.';
COMMENT ON COLUMN connection_logs.rx_bytes IS 'Bytes received from the client, if its agent counted them.';
COMMENT ON COLUMN connection_logs.tx_bytes IS 'Bytes sent to the client, if its agent counted them.';
-- No index has a column that an end sets: ending a connection touches no index. Each day has a unique index of its ids besides.
CREATE INDEX connection_logs_connect_time ON connection_logs (connect_time);
COMMENT ON INDEX connection_logs_connect_time IS 'Pages, newest first, and trimming the boundary day.';
CREATE INDEX connection_logs_target ON connection_logs (target, connect_time, method, app_name);
COMMENT ON INDEX connection_logs_target IS 'The filters workspace_owner, workspace_owner_email, workspace and workspace_id, also with method, type or app, rare matches of organization, and what an agent has open.';
CREATE INDEX connection_logs_user ON connection_logs (user_id) WHERE user_id IS NOT NULL;
COMMENT ON INDEX connection_logs_user IS 'The filters username and user_email.';
CREATE INDEX connection_logs_connection ON connection_logs (connection_id) WHERE connection_id IS NOT NULL;
COMMENT ON INDEX connection_logs_connection IS 'The filter connection_id.';
CREATE INDEX connection_logs_kind ON connection_logs (method, app_name);
COMMENT ON INDEX connection_logs_kind IS 'The filters method, type and app, where they match little.';

CREATE TABLE ongoing (
    id           uuid PRIMARY KEY,
    agent        bigint NOT NULL,
    target       bigint NOT NULL,
    connect_time timestamptz NOT NULL,
    boot         integer
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
COMMENT ON TABLE ongoing IS 'The connections without an end whose day is closed (connect_time < floor.closed_before). Those of the days still being written are found in place.';
COMMENT ON COLUMN ongoing.id IS 'connection_logs.id.';
COMMENT ON COLUMN ongoing.agent IS 'The agent: agents.agent.';
COMMENT ON COLUMN ongoing.target IS 'connection_logs.target.';
COMMENT ON COLUMN ongoing.connect_time IS 'connection_logs.connect_time: its day.';
COMMENT ON COLUMN ongoing.boot IS 'connection_logs.boot.';
CREATE INDEX ongoing_agent ON ongoing (agent);
COMMENT ON INDEX ongoing_agent IS 'Closing what a lost, restarted or deleted agent had open.';
CREATE INDEX ongoing_connect_time ON ongoing (connect_time);
COMMENT ON INDEX ongoing_connect_time IS 'Whether a day may be dropped, the retention of open connections, and the filter status:ongoing.';

CREATE TABLE contradictions (
    row_id          uuid NOT NULL,
    digest          bytea NOT NULL,
    organization_id uuid NOT NULL,
    connect_time    timestamptz NOT NULL,
    received_at     timestamptz NOT NULL,
    source          smallint NOT NULL CHECK (source IN (0, 1)),
    fields          text NOT NULL,
    claim           jsonb NOT NULL,
    PRIMARY KEY (row_id, digest)
);
COMMENT ON TABLE contradictions IS 'What events said against what is recorded of a connection. Only ever added to; goes with the retention of its connection.';
COMMENT ON COLUMN contradictions.row_id IS 'The connection: connection_logs.id.';
COMMENT ON COLUMN contradictions.digest IS 'The first 16 bytes of the SHA-256 of source and claim: the same content is stored once.';
COMMENT ON COLUMN contradictions.organization_id IS 'Organization of the connection: who may see it sees this.';
COMMENT ON COLUMN contradictions.connect_time IS 'The beginning of the connection as it was recorded then: what retention goes by.';
COMMENT ON COLUMN contradictions.received_at IS 'When ingest got the event, by the clock of ingest.';
COMMENT ON COLUMN contradictions.source IS 'Who said it: 0 the agent, 1 a reporter.';
COMMENT ON COLUMN contradictions.fields IS 'The fields that differ, separated by commas.';
COMMENT ON COLUMN contradictions.claim IS 'The event as it was said.';
CREATE INDEX contradictions_connect_time ON contradictions (connect_time);
COMMENT ON INDEX contradictions_connect_time IS 'Retention.';

CREATE TABLE changes (
    anchor     uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ids        uuid[] NOT NULL,
    days       date[] NOT NULL
);
ALTER TABLE changes ALTER COLUMN ids SET STORAGE EXTERNAL;
COMMENT ON TABLE changes IS 'The change feed: one row for each transaction that changed the log. The oldest are trimmed; one row always stays.';
COMMENT ON COLUMN changes.anchor IS 'Names the change at random: a position that names one that is not here is of another database, from before a restore, or older than what is kept.';
COMMENT ON COLUMN changes.xid IS 'The transaction. Readers stay below the oldest that still runs, so nothing that commits later is skipped.';
COMMENT ON COLUMN changes.changed_at IS 'When, by the clock of the database: what trimming goes by.';
COMMENT ON COLUMN changes.ids IS 'The rows that it changed, removed ones too.';
COMMENT ON COLUMN changes.days IS 'The UTC days that they are on.';
CREATE INDEX changes_xid ON changes (xid);
COMMENT ON INDEX changes_xid IS 'Reading the feed in order.';
INSERT INTO changes (ids, days) VALUES ('{}', '{}');

CREATE TABLE connection_log_counts (
    day             date NOT NULL,
    organization_id uuid NOT NULL,
    method          smallint NOT NULL,
    app_name        text COLLATE "C" NOT NULL,
    shard           smallint NOT NULL,
    entries         bigint NOT NULL,
    ended           bigint NOT NULL,
    PRIMARY KEY (day, organization_id, method, app_name, shard)
) WITH (fillfactor = 50);
COMMENT ON TABLE connection_log_counts IS 'How many rows connection_logs has, and how many of them have an end, changed in the transactions that change it. Sums over the shards are exact in any snapshot; one shard alone may be negative.';
COMMENT ON COLUMN connection_log_counts.app_name IS 'Normalized name of the client app; empty if unknown. Compared as bytes, as the programs do: all lock counts in one order.';
COMMENT ON COLUMN connection_log_counts.shard IS 'Which writer counted: writers of different shards do not wait for each other. Those of closed days are folded into shard 0.';
COMMENT ON COLUMN connection_log_counts.entries IS 'Rows.';
COMMENT ON COLUMN connection_log_counts.ended IS 'Rows that have a disconnect_time.';
CREATE INDEX connection_log_counts_organization ON connection_log_counts (organization_id);
COMMENT ON INDEX connection_log_counts_organization IS 'Counts of an organization, and of tokens limited to organizations.';

---------------------------------------------------------------------------------------------------- delivery

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
    reason          text NOT NULL,
    events          bigint NOT NULL CHECK (events BETWEEN 1 AND 9007199254740992),
    is_merged       boolean NOT NULL
);
COMMENT ON TABLE rejected_events IS 'Dead letters: events that were well-formed but could not be accepted, as they were received.';
COMMENT ON COLUMN rejected_events.id IS 'UUIDv5 of the sender and the message, so that a replay is the same letter; of a merged one of sender, workspace, day and cause.';
COMMENT ON COLUMN rejected_events.events IS 'How many events it stands for.';
COMMENT ON COLUMN rejected_events.is_merged IS 'Whether its sender left more of them than are kept: this is the first one, the others are only counted.';
COMMENT ON COLUMN rejected_events.token_id IS 'The reporter''s token; NULL if an agent sent it.';
COMMENT ON COLUMN rejected_events.message IS 'The protobuf message of type message_type.';
COMMENT ON COLUMN rejected_events.seq IS 'Its sequence number; of a merged one that of the last.';
CREATE INDEX rejected_events_received_at ON rejected_events (received_at);
COMMENT ON INDEX rejected_events_received_at IS 'The gaps endpoint, and retention.';

CREATE TABLE lost_events (
    id              uuid PRIMARY KEY,
    recorded_at     timestamptz NOT NULL,
    organization_id uuid NOT NULL,
    workspace_id    uuid NOT NULL,
    agent_id        uuid,
    spool_id        uuid,
    first_seq       bigint CHECK (first_seq BETWEEN 1 AND last_seq),
    last_seq        bigint CHECK (last_seq <= 9007199254740992),
    events          bigint NOT NULL CHECK (events BETWEEN 1 AND 9007199254740992),
    since           timestamptz CHECK (since BETWEEN '1970-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'),
    until           timestamptz CHECK (until BETWEEN '1970-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'),
    cause           text NOT NULL CHECK (length(cause) <= 1024)
);
COMMENT ON TABLE lost_events IS 'Events that the log never got: told by the agent (a spool that overflowed) or by a reporter on its behalf, or found as a gap in the sequence numbers.';
COMMENT ON COLUMN lost_events.id IS 'UUIDv5 of agent, spool and last_seq, or of what a reporter told, so that a replay is the same record.';
COMMENT ON COLUMN lost_events.agent_id IS 'The agent, if the directory knows it.';
COMMENT ON COLUMN lost_events.spool_id IS 'The spool whose sequence numbers these are; NULL, as they are, if a reporter told.';
CREATE INDEX lost_events_recorded_at ON lost_events (recorded_at);
COMMENT ON INDEX lost_events_recorded_at IS 'The gaps endpoint, and retention.';

---------------------------------------------------------------------------------------------------- retention

CREATE TABLE floor (
    one           boolean PRIMARY KEY DEFAULT true CHECK (one),
    cutoff        timestamptz NOT NULL,
    minimum       interval NOT NULL DEFAULT '0' CHECK (minimum >= '0'),
    closed_before timestamptz NOT NULL
);
INSERT INTO floor (cutoff, closed_before) VALUES ('-infinity', date_trunc('day', now() - interval '24 hours', 'UTC'));
COMMENT ON TABLE floor IS 'Below what nothing is written, and from where on days are still being written. One row.';
COMMENT ON COLUMN floor.cutoff IS 'What lies strictly before has been, or is being, purged: ingest refuses it. Only ever raised.';
COMMENT ON COLUMN floor.minimum IS 'Nothing younger than this is ever removed. Only the owner changes it.';
COMMENT ON COLUMN floor.closed_before IS 'Days that begin before this are closed: what is open of them is in ongoing. Only ever raised.';

CREATE TABLE purge_lease (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder     uuid,
    expires_at timestamptz NOT NULL
);
INSERT INTO purge_lease (expires_at) VALUES ('-infinity');
COMMENT ON TABLE purge_lease IS 'Who purges and compacts: one at a time. A lease rather than a lock, since a lock would be held by a transaction, which holds up the change feed.';
COMMENT ON COLUMN purge_lease.holder IS 'The run that holds it; NULL if it was given back.';
COMMENT ON COLUMN purge_lease.expires_at IS 'Until when it is held, unless it is renewed.';

CREATE TABLE compactions (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    day        date NOT NULL,
    run        uuid NOT NULL,
    since      pg_snapshot NOT NULL,
    after_time timestamptz NOT NULL,
    after_id   uuid NOT NULL,
    copied     bigint NOT NULL DEFAULT 0,
    is_copied  boolean NOT NULL DEFAULT false,
    is_indexed boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE compactions IS 'How far the copy of a closed day is. Only functions change it: nobody else can say that a copy is whole.';
COMMENT ON COLUMN compactions.run IS 'The run of connlog-purge that makes the copy. Another one that begins takes it over.';
COMMENT ON COLUMN compactions.since IS 'Changes that are not visible in this snapshot are not in the copy yet.';
COMMENT ON COLUMN compactions.after_time IS 'The last row that was copied: its connect_time.';
COMMENT ON COLUMN compactions.after_id IS 'The last row that was copied: its id.';
COMMENT ON COLUMN compactions.copied IS 'Rows that the copy has.';
COMMENT ON COLUMN compactions.is_copied IS 'Whether the whole day was copied.';
COMMENT ON COLUMN compactions.is_indexed IS 'Whether it has its indexes, too.';

CREATE TABLE purge_runs (
    id                uuid PRIMARY KEY,
    started_at        timestamptz NOT NULL,
    finished_at       timestamptz NOT NULL,
    cutoff            timestamptz,
    retention_seconds bigint,
    days_dropped      integer NOT NULL,
    rows_dropped      bigint NOT NULL,
    rows_trimmed      bigint NOT NULL,
    open_removed      bigint NOT NULL,
    rejected_removed  bigint NOT NULL,
    lost_removed      bigint NOT NULL,
    audit_removed     bigint NOT NULL,
    days_compacted    integer NOT NULL,
    rows_left         bigint NOT NULL,
    outcome           text NOT NULL CHECK (outcome IN ('complete', 'incomplete', 'interrupted')),
    error             text
);
COMMENT ON TABLE purge_runs IS 'Proof that retention ran: one row for each run of connlog-purge that had a cutoff or compacted anything.';
COMMENT ON COLUMN purge_runs.cutoff IS 'What of the log lay strictly before was due; NULL if the log is kept for ever.';
COMMENT ON COLUMN purge_runs.retention_seconds IS 'How long the log was kept; NULL if for ever.';
COMMENT ON COLUMN purge_runs.rejected_removed IS 'Dead letters removed.';
COMMENT ON COLUMN purge_runs.lost_removed IS 'Records of losses removed.';
COMMENT ON COLUMN purge_runs.audit_removed IS 'Records of uses of the API removed.';
COMMENT ON COLUMN purge_runs.days_compacted IS 'Closed days that were rewritten without room for changes.';
COMMENT ON COLUMN purge_runs.rows_left IS 'What was due and is still there when the run ended.';
CREATE INDEX purge_runs_started_at ON purge_runs (started_at);
COMMENT ON INDEX purge_runs_started_at IS 'The last runs, newest first.';

CREATE TABLE api_audit (
    id         uuid PRIMARY KEY,
    at         timestamptz NOT NULL,
    token_id   uuid NOT NULL,
    user_id    uuid,
    address    inet,
    endpoint   text NOT NULL,
    query      text NOT NULL,
    format     text,
    status     smallint NOT NULL,
    rows       bigint,
    complete   boolean
);
COMMENT ON TABLE api_audit IS 'Who read what through connlog-query: one row for each request with a recognized token.';
COMMENT ON COLUMN api_audit.address IS 'The address of the peer: of a proxy, if there is one.';
COMMENT ON COLUMN api_audit.query IS 'The search, in its own words; empty is everything.';
COMMENT ON COLUMN api_audit.rows IS 'How many entries were given; NULL if the endpoint gives none, or the request still runs.';
COMMENT ON COLUMN api_audit.complete IS 'Of an export or a tail: whether it came to its end; NULL while it runs.';
CREATE INDEX api_audit_at ON api_audit (at);
COMMENT ON INDEX api_audit_at IS 'The last uses, newest first, and retention.';

CREATE TABLE feed_consumers (
    name          text PRIMARY KEY,
    anchor        uuid NOT NULL,
    xid           xid8 NOT NULL,
    token_id      uuid,
    registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    gap_at        timestamptz
);
COMMENT ON TABLE feed_consumers IS 'Readers of the change feed for whom changes are kept until they have read them, up to a bound on bytes.';
COMMENT ON COLUMN feed_consumers.anchor IS 'The change up to which the consumer has read.';
COMMENT ON COLUMN feed_consumers.xid IS 'The transaction of that change.';
COMMENT ON COLUMN feed_consumers.token_id IS 'The API token that reads as this consumer: the first one that did; no other one may. NULL until then.';
COMMENT ON COLUMN feed_consumers.seen_at IS 'When the consumer last said how far it has read.';
COMMENT ON COLUMN feed_consumers.gap_at IS 'When changes were trimmed that it had not read, because they took too many bytes; NULL if none were. It has to start anew.';

-- A publication FOR ALL TABLES refuses changes of what has no identity. Days have their unique index.
ALTER TABLE connection_logs REPLICA IDENTITY FULL;

---------------------------------------------------------------------------------------------------- days

CREATE FUNCTION day_table(day date) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
    AS $$ SELECT 'connection_logs_' || to_char(day, 'YYYYMMDD') $$;
COMMENT ON FUNCTION day_table(date) IS 'The name of the partition of a UTC day.';

CREATE FUNCTION days() RETURNS SETOF date
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT to_date(right(child.relname, 8), 'YYYYMMDD')
        FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid
        WHERE inhparent = 'public.connection_logs'::regclass AND NOT inhdetachpending AND child.relname ~ '^connection_logs_[0-9]{8}$'
        ORDER BY 1
    $$;
COMMENT ON FUNCTION days() IS 'The UTC days that have a partition, oldest first. One that is being detached has none, and somebody''s partition of another name is no day.';

CREATE FUNCTION unattached_days() RETURNS SETOF date
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT to_date(right(relname, 8), 'YYYYMMDD') FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname ~ '^connection_logs_[0-9]{8}$'
            AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid AND NOT inhdetachpending)
        ORDER BY 1
    $$;
COMMENT ON FUNCTION unattached_days() IS 'The UTC days whose tables are there and not attached to the log, oldest first: somebody detached them, and may attach them again.';

CREATE FUNCTION start_of(day date) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
    AS $$ SELECT day::timestamp AT TIME ZONE 'UTC' $$;
COMMENT ON FUNCTION start_of(date) IS 'The first instant of a UTC day.';

CREATE FUNCTION grant_day(partition_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        -- Roles are the server's: whether this database has them shows in who owns it.
        IF (SELECT relowner FROM pg_class WHERE oid = 'public.connection_logs'::regclass) = to_regrole('connlog_owner')::oid THEN
            EXECUTE format('GRANT SELECT ON public.%I TO connlog_ingest, connlog_query, connlog_purge', partition_name);
            EXECUTE format('GRANT UPDATE (method, method_known, app_name, ip, client_ip, client_session_id, user_id, boot,
                disconnect_time, ended_received_at, disconnect_inferred, disconnect_reason, code, rx_bytes, tx_bytes)
                ON public.%I TO connlog_ingest', partition_name);
        END IF;
    END
    $$;
COMMENT ON FUNCTION grant_day(text) IS 'Gives the services their rights to a day: statements name days, and a right to the parent does not reach those. Ingest may fill in and end; it may not change what a row is about or when it began, and delete nothing.';

CREATE FUNCTION attach_day(day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        partition_name text := public.day_table(attach_day.day);
    BEGIN
        -- One at a time, and not while the floor is raised or a day is closed.
        LOCK TABLE ONLY public.connection_logs IN SHARE UPDATE EXCLUSIVE MODE;
        IF EXISTS (SELECT FROM public.days() AS attached WHERE attached = attach_day.day) THEN
            RETURN false;
        END IF;
        -- Not to_regclass: it may not know yet of a table that another transaction made while this one waited.
        IF EXISTS (SELECT FROM pg_class WHERE relname = partition_name AND relnamespace = 'public'::regnamespace) THEN
            RAISE EXCEPTION 'table % has the name of a day, and is not attached to the log', partition_name
                USING ERRCODE = 'CL003', TABLE = partition_name, HINT = 'attach it to connection_logs again, or rename it';
        END IF;
        IF public.start_of(attach_day.day + 1) <= (SELECT cutoff FROM public.floor) THEN
            RAISE EXCEPTION 'day % lies below the retention floor', attach_day.day USING ERRCODE = 'CL001';
        END IF;
        IF public.start_of(attach_day.day) > statement_timestamp() + interval '2 days'
            OR public.start_of(attach_day.day) < statement_timestamp() - interval '3660 days' THEN
            RAISE EXCEPTION 'day % is too far from the present', attach_day.day USING ERRCODE = 'CL002';
        END IF;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.connection_logs INCLUDING ALL)
            WITH (fillfactor = 40, autovacuum_vacuum_insert_scale_factor = 0.5)', partition_name);
        EXECUTE format('CREATE UNIQUE INDEX %I ON public.%I (id)', partition_name || '_id', partition_name);
        EXECUTE format('COMMENT ON INDEX public.%I IS %L', partition_name || '_id',
            'The look-up of the write path, one entry of the API, and that an id has one row.');
        EXECUTE format('ALTER TABLE public.%I REPLICA IDENTITY USING INDEX %I', partition_name, partition_name || '_id');
        PERFORM public.grant_day(partition_name);
        EXECUTE format('ALTER TABLE public.connection_logs ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            partition_name, public.start_of(attach_day.day), public.start_of(attach_day.day + 1));
        RETURN true;
    END
    $$;
COMMENT ON FUNCTION attach_day(date) IS 'Makes the partition of a UTC day if it is missing, and says whether it did. A plain table is made and then attached: CREATE … PARTITION OF would lock out readers and deadlock two writers. Less than half of each page is filled, so that connections end on the page where they began.';

CREATE FUNCTION take_unknown_starts(day date, wanted uuid[]) RETURNS SETOF uuid
    LANGUAGE plpgsql STRICT SECURITY DEFINER ROWS 10
    SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF EXISTS (SELECT FROM public.days() AS attached WHERE attached = take_unknown_starts.day) THEN
            RETURN QUERY EXECUTE format('DELETE FROM public.%I WHERE id = ANY ($1) AND start_source IS NULL RETURNING id',
                public.day_table(take_unknown_starts.day)) USING wanted;
        END IF;
    END
    $$;
COMMENT ON FUNCTION take_unknown_starts(date, uuid[]) IS 'Takes rows whose beginning nobody said out of a day, so that they can be written where they belong. Others stay. What ingest may delete, and no more.';

CREATE FUNCTION close_days(upto timestamptz, collected_at pg_snapshot, collected uuid[]) RETURNS timestamptz
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
    AS $$
    DECLARE
        from_before timestamptz;
        bound timestamptz := least(upto, date_trunc('day', clock_timestamp() - interval '24 hours', 'UTC'));
        oldest xid8 := pg_snapshot_xmin(collected_at);
    BEGIN
        -- Waits for every batch, and keeps the next ones waiting for a moment.
        LOCK TABLE ONLY public.connection_logs IN SHARE MODE;
        SELECT closed_before INTO from_before FROM public.floor;
        -- Nobody can say what is open of a day that is not attached.
        bound := least(bound, (SELECT min(public.start_of(day)) FROM public.unattached_days() AS day WHERE public.start_of(day) >= from_before));
        IF from_before >= bound THEN
            RETURN from_before;
        END IF;
        -- If the feed was trimmed past what was collected, nobody can say what changed since.
        IF NOT EXISTS (SELECT FROM public.changes WHERE xid < oldest) THEN
            RETURN NULL;
        END IF;
        INSERT INTO public.ongoing (id, agent, target, connect_time, boot)
        SELECT log.id, t.agent, log.target, log.connect_time, log.boot
        FROM public.connection_logs AS log JOIN public.targets AS t USING (target)
        WHERE log.id = ANY (collected || ARRAY(
                SELECT unnest(ids) FROM public.changes WHERE xid >= oldest AND NOT pg_visible_in_snapshot(xid, collected_at)))
            AND log.connect_time >= from_before AND log.connect_time < bound
            AND log.disconnect_time IS NULL AND log.method <= 2
        ON CONFLICT (id) DO NOTHING;
        -- The counts say how many are open. A caller who collected too few makes it take longer, and hides nothing.
        IF (SELECT count(*) FROM public.ongoing WHERE connect_time >= from_before AND connect_time < bound) <> (
            SELECT coalesce(sum(c.entries - c.ended), 0) FROM public.connection_log_counts AS c
            WHERE c.day >= (from_before AT TIME ZONE 'UTC')::date AND c.day < (bound AT TIME ZONE 'UTC')::date AND c.method <= 2) THEN
            INSERT INTO public.ongoing (id, agent, target, connect_time, boot)
            SELECT log.id, t.agent, log.target, log.connect_time, log.boot
            FROM public.connection_logs AS log JOIN public.targets AS t USING (target)
            WHERE log.connect_time >= from_before AND log.connect_time < bound AND log.disconnect_time IS NULL AND log.method <= 2
            ON CONFLICT (id) DO NOTHING;
        END IF;
        -- Two may hold the lock together: the later one lists what it found, too.
        UPDATE public.floor SET closed_before = greatest(closed_before, bound) RETURNING closed_before INTO from_before;
        RETURN from_before;
    END
    $$;
COMMENT ON FUNCTION close_days(timestamptz, pg_snapshot, uuid[]) IS 'Closes the days before upto, but none that ended less than 24 hours ago, and none from one on that is not attached: lists what is open of them, which the caller collected after it took a snapshot, and what changed since. Returns closed_before; NULL: the caller has to collect anew. The caller sets lock_timeout.';

---------------------------------------------------------------------------------------------------- the change feed

CREATE FUNCTION trim_changes(kept_since timestamptz, max_bytes bigint) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        newest xid8 := (SELECT max(xid) FROM public.changes WHERE xid < pg_snapshot_xmin(pg_current_snapshot()));
        -- So many at once: nobody looks through all that is kept.
        last_due xid8 := (
            SELECT max(oldest.xid) FROM (SELECT xid, changed_at FROM public.changes WHERE xid < newest ORDER BY xid LIMIT 100000) AS oldest
            WHERE oldest.changed_at < least(kept_since, clock_timestamp()));
        first_needed xid8 := (SELECT min(xid) FROM public.feed_consumers WHERE gap_at IS NULL);
        rows_gone bigint;
    BEGIN
        IF first_needed <= last_due THEN
            IF (SELECT sum(pg_column_size(ids)) FROM public.changes WHERE xid >= first_needed) > max_bytes THEN
                UPDATE public.feed_consumers SET gap_at = clock_timestamp() WHERE gap_at IS NULL AND xid <= last_due;
            ELSE
                last_due := (SELECT max(xid) FROM public.changes WHERE xid < first_needed);
            END IF;
        END IF;
        -- A prefix, and never the last one: it is the end of the feed until there is another.
        DELETE FROM public.changes WHERE xid <= last_due;
        GET DIAGNOSTICS rows_gone = ROW_COUNT;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION trim_changes(timestamptz, bigint) IS 'Removes the oldest changes, up to those of kept_since and 100,000 transactions at most, and says how many. What a consumer has not read stays, unless all that is kept for consumers takes more than max_bytes: then each of them is told of its gap.';

CREATE FUNCTION restart_feed() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM public.changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())) THEN
            RETURN false;
        END IF;
        LOCK TABLE public.changes IN SHARE ROW EXCLUSIVE MODE;
        -- Again, under the lock: another ingest may have done it.
        IF NOT EXISTS (SELECT FROM public.changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())) THEN
            RETURN false;
        END IF;
        DELETE FROM public.changes;
        UPDATE public.feed_consumers SET gap_at = clock_timestamp() WHERE gap_at IS NULL;
        INSERT INTO public.changes (ids, days) VALUES ('{}', '{}');
        RETURN true;
    END
    $$;
COMMENT ON FUNCTION restart_feed() IS 'Begins the feed anew if it has changes of transactions that are yet to come: it was restored into a younger server. Every position is void then.';

CREATE FUNCTION note_read(consumer text, read_anchor uuid, reader uuid) RETURNS boolean
    LANGUAGE sql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
        UPDATE public.feed_consumers AS f
        SET anchor = CASE WHEN c.xid > f.xid THEN c.anchor ELSE f.anchor END, xid = greatest(f.xid, c.xid), token_id = reader,
            seen_at = clock_timestamp()
        FROM public.changes AS c WHERE f.name = consumer AND c.anchor = read_anchor AND coalesce(f.token_id, reader) = reader
        RETURNING true
    $$;
COMMENT ON FUNCTION note_read(text, uuid, uuid) IS 'Notes how far a consumer has read, and that it is the reader''s; NULL if there is no such consumer or change, or it is another reader''s.';

---------------------------------------------------------------------------------------------------- retention

CREATE FUNCTION purge_bound() RETURNS timestamptz
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$ SELECT clock_timestamp() - f.minimum FROM public.floor AS f $$;
COMMENT ON FUNCTION purge_bound() IS 'What is not before this time may not be removed: the clock less the minimum retention.';

CREATE FUNCTION take_purge_lease(wanted_by uuid) RETURNS boolean
    LANGUAGE sql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
        UPDATE public.purge_lease SET holder = wanted_by, expires_at = clock_timestamp() + interval '1 minute'
        WHERE holder IS NULL OR holder = wanted_by OR expires_at < clock_timestamp()
        RETURNING true
    $$;
COMMENT ON FUNCTION take_purge_lease(uuid) IS 'Takes the right to purge and compact for a minute, or prolongs it; NULL if another run holds it.';

CREATE FUNCTION give_purge_lease(held_by uuid) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$ UPDATE public.purge_lease SET holder = NULL WHERE holder = held_by $$;
COMMENT ON FUNCTION give_purge_lease(uuid) IS 'Gives it back.';

CREATE FUNCTION raise_floor(wanted timestamptz, retention_seconds double precision) RETURNS timestamptz
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        raised timestamptz;
    BEGIN
        -- Waits for the batches that run on the floor as it is.
        LOCK TABLE ONLY public.connection_logs IN SHARE MODE;
        UPDATE public.floor
        SET cutoff = greatest(cutoff, least(wanted, clock_timestamp() - greatest(minimum, make_interval(secs => retention_seconds))))
        RETURNING cutoff INTO raised;
        RETURN raised;
    END
    $$;
COMMENT ON FUNCTION raise_floor(timestamptz, double precision) IS 'Raises the retention floor, but not past the clock less the retention and less the minimum, and returns it. It never falls. The caller sets lock_timeout.';

CREATE FUNCTION hold_day(partition_name text, patience text) RETURNS void
    LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        -- A vacuum that runs on its own gives way to who waits for longer than deadlock_timeout, which the next lock does not.
        PERFORM set_config('lock_timeout', '2s', true);
        EXECUTE format('LOCK TABLE public.%I IN SHARE UPDATE EXCLUSIVE MODE', partition_name);
        -- No patience at all would be patience without end.
        PERFORM set_config('lock_timeout', least(greatest(extract(epoch FROM patience::interval) * 1000, 1), 60000)::integer::text, true);
        LOCK TABLE ONLY public.connection_logs IN ACCESS EXCLUSIVE MODE;
    END
    $$;
COMMENT ON FUNCTION hold_day(text, text) IS 'Locks a day against vacuum, and then the log against everybody, which may wait for no longer than patience.';

CREATE FUNCTION drop_day(day date, patience text) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        day_start timestamptz := public.start_of(drop_day.day);
        day_end timestamptz := public.start_of(drop_day.day + 1);
        rows_gone bigint;
    BEGIN
        IF day_end > public.purge_bound() THEN
            RAISE EXCEPTION 'day % is not over, or within the minimum retention', drop_day.day
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        -- A table of that name that is not a day is somebody's.
        IF NOT EXISTS (SELECT FROM public.days() AS attached WHERE attached = drop_day.day) THEN
            RETURN 0;
        END IF;
        PERFORM public.hold_day(public.day_table(drop_day.day), patience);
        IF NOT EXISTS (SELECT FROM public.days() AS attached WHERE attached = drop_day.day) THEN
            RETURN 0;
        END IF;
        -- Under the lock: a heartbeat may have reopened something meanwhile.
        IF (SELECT closed_before FROM public.floor) < day_end
            OR EXISTS (SELECT FROM public.ongoing WHERE connect_time >= day_start AND connect_time < day_end) THEN
            RETURN NULL;
        END IF;
        EXECUTE format('DROP TABLE public.%I', public.day_table(drop_day.day));
        WITH gone AS (DELETE FROM public.connection_log_counts AS counts WHERE counts.day = drop_day.day RETURNING entries)
        SELECT coalesce(sum(entries), 0) INTO rows_gone FROM gone;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION drop_day(date, text) IS 'Drops a closed UTC day with its counts, and says how many rows it had; NULL if something of it is open, or it is not closed. Refuses one that is not wholly before purge_bound().';

CREATE FUNCTION trim_day(day date, cutoff timestamptz, most bigint) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        rows_gone bigint;
    BEGIN
        -- Before any day, as everybody does.
        LOCK TABLE ONLY public.connection_logs IN ROW EXCLUSIVE MODE;
        IF NOT EXISTS (SELECT FROM public.days() AS attached WHERE attached = trim_day.day) THEN
            RETURN 0;
        END IF;
        -- Rows that someone else holds are left for the next round. That a row has ended is asked of the row itself, on its newest version.
        EXECUTE format('
            WITH due AS (
                SELECT ctid FROM public.%1$I WHERE connect_time < $1 AND (disconnect_time IS NOT NULL OR method >= 3)
                ORDER BY connect_time LIMIT $2 FOR UPDATE SKIP LOCKED
            ), gone AS (
                DELETE FROM public.%1$I AS h USING due WHERE h.ctid = due.ctid
                RETURNING h.id, h.target, h.method, coalesce(h.app_name, '''') COLLATE "C" AS app_name, h.disconnect_time
            ), counted AS (
                INSERT INTO public.connection_log_counts AS c (day, organization_id, method, app_name, shard, entries, ended)
                SELECT $3, t.organization_id, method, app_name, 0, -count(*), -count(disconnect_time)
                FROM gone JOIN public.targets AS t USING (target) GROUP BY 2, 3, 4 ORDER BY 2, 3, 4
                ON CONFLICT (day, organization_id, method, app_name, shard) DO UPDATE
                SET entries = c.entries + excluded.entries, ended = c.ended + excluded.ended
            ), noted AS (
                INSERT INTO public.changes (ids, days) SELECT array_agg(id), ARRAY[$3] FROM gone HAVING count(*) > 0
            )
            SELECT count(*) FROM gone', public.day_table(trim_day.day))
        INTO rows_gone USING least(trim_day.cutoff, public.purge_bound()), most, trim_day.day;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION trim_day(date, timestamptz, bigint) IS 'Deletes rows of a UTC day that have ended and lie strictly before the cutoff, but none from after purge_bound(), the oldest first and so many at most, with their counts, and says how many.';

CREATE FUNCTION due_open(cutoff timestamptz, live_since timestamptz) RETURNS TABLE (id uuid, connect_time timestamptz, agent bigint)
    LANGUAGE plpgsql STRICT STABLE
    SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_custom_plan
    AS $$
    DECLARE
        written_from timestamptz := (SELECT closed_before FROM public.floor);
        -- While no ingest attends, or not for long enough, nobody can have been heard, and everybody counts as alive.
        is_heard boolean := EXISTS (SELECT FROM public.ingest_attendance WHERE heard_since < live_since AND attended_at >= live_since);
    BEGIN
        RETURN QUERY
        SELECT o.id, o.connect_time, o.agent FROM (
            SELECT listed.id, listed.connect_time, listed.agent, listed.boot FROM public.ongoing AS listed
            WHERE listed.connect_time < cutoff
            UNION ALL
            SELECT log.id, log.connect_time, t.agent, log.boot
            FROM public.connection_logs AS log JOIN public.targets AS t USING (target)
            WHERE log.connect_time >= written_from AND log.connect_time < cutoff AND log.disconnect_time IS NULL AND log.method <= 2
        ) AS o
        WHERE o.boot IS NULL OR is_heard AND NOT EXISTS (
            SELECT FROM public.agent_spools AS s WHERE s.agent = o.agent AND s.last_seen_at >= live_since);
    END
    $$;
COMMENT ON FUNCTION due_open(timestamptz, timestamptz) IS 'Open connections from before the cutoff, but for those of a boot, if the agent, or a reporter that speaks for it, was heard since live_since: what is no longer listed is closed soon.';

CREATE FUNCTION remove_open(cutoff timestamptz, live_since timestamptz, most bigint) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        bound timestamptz := least(remove_open.cutoff, public.purge_bound());
        heard timestamptz := least(remove_open.live_since, clock_timestamp());
        held bigint[];
        of_day record;
        of_this_day bigint;
        rows_gone bigint := 0;
    BEGIN
        LOCK TABLE ONLY public.connection_logs IN ROW EXCLUSIVE MODE;
        held := ARRAY(
            SELECT agents.agent FROM public.agents
            WHERE agents.agent IN (SELECT due.agent FROM public.due_open(bound, heard) AS due ORDER BY 1 LIMIT most)
            ORDER BY 1 FOR NO KEY UPDATE SKIP LOCKED);
        -- Again, under the locks: a heartbeat may have come.
        FOR of_day IN
            SELECT (due.connect_time AT TIME ZONE 'UTC')::date AS day, array_agg(due.id) AS ids
            FROM (SELECT * FROM public.due_open(bound, heard) AS d WHERE d.agent = ANY (held) ORDER BY d.id LIMIT most) AS due
            WHERE (due.connect_time AT TIME ZONE 'UTC')::date IN (SELECT attached FROM public.days() AS attached)
            GROUP BY 1 ORDER BY 1
        LOOP
            EXECUTE format('
                WITH gone AS (
                    DELETE FROM public.%I WHERE id = ANY ($1) AND disconnect_time IS NULL RETURNING id, target, method, coalesce(app_name, '''') COLLATE "C" AS app_name
                ), counted AS (
                    INSERT INTO public.connection_log_counts AS c (day, organization_id, method, app_name, shard, entries, ended)
                    SELECT $2, t.organization_id, method, app_name, 0, -count(*), 0
                    FROM gone JOIN public.targets AS t USING (target) GROUP BY 2, 3, 4 ORDER BY 2, 3, 4
                    ON CONFLICT (day, organization_id, method, app_name, shard) DO UPDATE SET entries = c.entries + excluded.entries
                )
                SELECT count(*) FROM gone', public.day_table(of_day.day))
            INTO of_this_day USING of_day.ids, of_day.day;
            DELETE FROM public.ongoing WHERE ongoing.id = ANY (of_day.ids);
            INSERT INTO public.changes (ids, days) VALUES (of_day.ids, ARRAY[of_day.day]);
            rows_gone := rows_gone + of_this_day;
        END LOOP;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION remove_open(timestamptz, timestamptz, bigint) IS 'Deletes open connections that are due, under the locks of their agents, but none from after purge_bound(), so many at most, and says how many.';

CREATE FUNCTION remove_records(kind text, cutoff timestamptz, most bigint) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        time_column text := CASE kind WHEN 'rejected_events' THEN 'received_at' WHEN 'lost_events' THEN 'recorded_at'
            WHEN 'api_audit' THEN 'at' WHEN 'agent_spools' THEN 'last_seen_at' WHEN 'contradictions' THEN 'connect_time' END;
        kept text := '';
        rows_gone bigint;
    BEGIN
        IF time_column IS NULL THEN
            RAISE EXCEPTION 'there are no records of kind %', kind USING ERRCODE = 'invalid_parameter_value';
        END IF;
        cutoff := least(cutoff, public.purge_bound());
        IF kind = 'contradictions' THEN
            -- What contradicts a connection stays as long as the connection may.
            cutoff := least(cutoff, (SELECT least(f.cutoff, f.closed_before) FROM public.floor AS f));
            kept := 'AND NOT EXISTS (SELECT FROM public.ongoing AS o WHERE o.id = row_id)';
        ELSIF kind = 'agent_spools' THEN
            kept := 'AND NOT EXISTS (SELECT FROM public.agents AS a WHERE a.agent = agent_spools.agent AND a.open_since IS NOT NULL)';
        END IF;
        EXECUTE format('DELETE FROM public.%1$I WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM public.%1$I WHERE %2$I < $1 %3$s ORDER BY %2$I LIMIT $2 FOR UPDATE SKIP LOCKED))',
            kind, time_column, kept)
        USING cutoff, most;
        GET DIAGNOSTICS rows_gone = ROW_COUNT;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION remove_records(text, timestamptz, bigint) IS 'Deletes dead letters, losses, uses of the API, contradictions, or what is known of agents that fell silent, from strictly before the cutoff, but none from after purge_bound(), so many at most, and says how many.';

CREATE FUNCTION end_uses(ids uuid[], row_counts bigint[], completeness boolean[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
        UPDATE public.api_audit AS a SET rows = k.rows, complete = k.complete
        FROM unnest(ids, row_counts, completeness) AS k (id, rows, complete)
        WHERE a.id = k.id AND a.rows IS NULL AND a.complete IS NULL AND (k.rows IS NOT NULL OR k.complete IS NOT NULL)
    $$;
COMMENT ON FUNCTION end_uses(uuid[], bigint[], boolean[]) IS 'Notes, once, how uses of the API that were still running ended. What is noted stays.';

---------------------------------------------------------------------------------------------------- compaction

CREATE FUNCTION compacted_table(day date) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
    AS $$ SELECT 'compacted_' || to_char(day, 'YYYYMMDD') $$;
COMMENT ON FUNCTION compacted_table(date) IS 'The name of the table that a day is rewritten into.';

CREATE FUNCTION uncompacted_days() RETURNS SETOF date
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
        WITH closed AS (
            SELECT to_date(right(child.relname, 8), 'YYYYMMDD') AS day, coalesce(child.reloptions @> ARRAY['fillfactor=40'], false) AS has_room
            FROM pg_inherits
            JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent = 'public.connection_logs'::regclass AND NOT inhdetachpending AND child.relname ~ '^connection_logs_[0-9]{8}$'
                AND public.start_of(to_date(right(child.relname, 8), 'YYYYMMDD') + 1) <= (SELECT closed_before FROM public.floor)
        ), late AS (
            -- Compacting folds the shards: what they have was written since.
            SELECT c.day, sum(abs(c.entries) + abs(c.ended)) AS changes FROM public.connection_log_counts AS c WHERE c.shard <> 0 GROUP BY c.day
        )
        SELECT closed.day FROM closed LEFT JOIN late USING (day)
        WHERE has_room OR late.changes * 20 >= (SELECT sum(c.entries) FROM public.connection_log_counts AS c WHERE c.day = closed.day)
        ORDER BY 1
    $$;
COMMENT ON FUNCTION uncompacted_days() IS 'The closed days whose pages still have room for changes, or of which a twentieth came or ended since they were compacted; oldest first.';

CREATE FUNCTION begin_compaction(wanted_by uuid, day date) RETURNS boolean
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET client_min_messages = warning
    AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM public.purge_lease WHERE holder = wanted_by AND expires_at > clock_timestamp()) THEN
            RAISE EXCEPTION 'run % does not hold the right to compact', wanted_by USING ERRCODE = 'CL005';
        END IF;
        -- Waits for a part that another run copies just now. That run finds afterwards that the copy is no longer its own.
        PERFORM FROM public.compactions FOR UPDATE;
        EXECUTE format('DROP TABLE IF EXISTS public.%I', public.compacted_table(begin_compaction.day));
        IF NOT EXISTS (SELECT FROM public.days() AS attached WHERE attached = begin_compaction.day)
            OR public.start_of(begin_compaction.day + 1) > (SELECT closed_before FROM public.floor) THEN
            RETURN false;
        END IF;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.connection_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING COMMENTS INCLUDING STORAGE)
            WITH (autovacuum_enabled = off)', public.compacted_table(begin_compaction.day));
        -- The snapshot is older than all that is copied: changes from here on are looked at again.
        INSERT INTO public.compactions (day, run, since, after_time, after_id)
        VALUES (begin_compaction.day, wanted_by, pg_current_snapshot(), '-infinity', '00000000-0000-0000-0000-000000000000')
        ON CONFLICT (one) DO UPDATE SET day = excluded.day, run = excluded.run, since = excluded.since, after_time = excluded.after_time,
            after_id = excluded.after_id, copied = 0, is_copied = false, is_indexed = false;
        RETURN true;
    END
    $$;
COMMENT ON FUNCTION begin_compaction(uuid, date) IS 'Makes an empty table for the run that holds the lease, to rewrite a closed day into; false if there is no such day. One that an earlier run left is dropped.';

CREATE FUNCTION hold_compaction(wanted_by uuid, wanted date) RETURNS public.compactions
    LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        held public.compactions;
    BEGIN
        SELECT * INTO held FROM public.compactions AS c WHERE c.run = wanted_by AND c.day = wanted FOR UPDATE;
        IF held.run IS NULL THEN
            RAISE EXCEPTION 'day % is compacted by another run by now', wanted USING ERRCODE = 'CL005';
        END IF;
        RETURN held;
    END
    $$;
COMMENT ON FUNCTION hold_compaction(uuid, date) IS 'Locks the state of a compaction, if it is still that of the run.';

CREATE FUNCTION copy_compacted(wanted_by uuid, day date, most bigint) RETURNS boolean
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        held public.compactions := public.hold_compaction(wanted_by, copy_compacted.day);
        now_copied bigint;
        last_time timestamptz;
        last_id uuid;
    BEGIN
        EXECUTE format('
            WITH copied AS (
                INSERT INTO public.%I SELECT * FROM public.%I WHERE (connect_time, id) > ($1, $2) ORDER BY connect_time, id LIMIT $3
                RETURNING connect_time, id
            )
            SELECT count(*), (SELECT connect_time FROM copied ORDER BY connect_time DESC, id DESC LIMIT 1),
                (SELECT id FROM copied ORDER BY connect_time DESC, id DESC LIMIT 1) FROM copied',
            public.compacted_table(day), public.day_table(day))
        INTO now_copied, last_time, last_id USING held.after_time, held.after_id, most;
        UPDATE public.compactions SET after_time = coalesce(last_time, after_time), after_id = coalesce(last_id, after_id),
            copied = copied + now_copied, is_copied = now_copied < most;
        RETURN now_copied >= most;
    END
    $$;
COMMENT ON FUNCTION copy_compacted(uuid, date, bigint) IS 'Copies the next rows of a day, in order, and says whether there are more: a transaction of its own for each part, so that the change feed is not held up.';

CREATE FUNCTION index_compacted(wanted_by uuid, day date) RETURNS boolean
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        held public.compactions := public.hold_compaction(wanted_by, index_compacted.day);
        table_name text := public.compacted_table(index_compacted.day);
        wanted record;
    BEGIN
        FOR wanted IN
            SELECT table_name || '_id' AS name, format('CREATE UNIQUE INDEX %I ON public.%I (id)', table_name || '_id', table_name) AS sql
            UNION ALL
            SELECT replace(relname, 'connection_logs', table_name), regexp_replace(pg_get_indexdef(indexrelid), '^CREATE INDEX .* USING ',
                format('CREATE INDEX %I ON public.%I USING ', replace(relname, 'connection_logs', table_name), table_name))
            FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE indrelid = 'public.connection_logs'::regclass
        LOOP
            IF NOT EXISTS (SELECT FROM pg_class WHERE relname = wanted.name AND relnamespace = 'public'::regnamespace) THEN
                EXECUTE wanted.sql;
                RETURN true;
            END IF;
        END LOOP;
        -- Attaching need not look at the rows then.
        EXECUTE format('ALTER TABLE public.%I ADD CONSTRAINT %I CHECK (connect_time >= %L AND connect_time < %L)', table_name,
            table_name || '_day', public.start_of(index_compacted.day), public.start_of(index_compacted.day + 1));
        EXECUTE format('ALTER TABLE public.%I REPLICA IDENTITY USING INDEX %I', table_name, table_name || '_id');
        EXECUTE format('ANALYZE public.%I', table_name);
        UPDATE public.compactions SET is_indexed = held.is_copied;
        RETURN false;
    END
    $$;
COMMENT ON FUNCTION index_compacted(uuid, date) IS 'Gives the copy of a day the next of the indexes of a day, and says whether there are more: a transaction of its own for each.';

CREATE FUNCTION apply_to_compacted(wanted_by uuid, day date) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        held public.compactions := public.hold_compaction(wanted_by, apply_to_compacted.day);
        -- Before what it covers is read.
        later pg_snapshot := pg_current_snapshot();
        oldest xid8 := pg_snapshot_xmin(held.since);
        changed uuid[];
        gone bigint;
        came bigint;
    BEGIN
        IF NOT held.is_indexed THEN
            RAISE EXCEPTION 'the copy of day % is not whole', apply_to_compacted.day USING ERRCODE = 'CL005';
        END IF;
        -- A row that is merely visible in the snapshot may be younger than one that is not, and was trimmed.
        IF NOT EXISTS (SELECT FROM public.changes WHERE xid < oldest) THEN
            RETURN NULL;
        END IF;
        changed := ARRAY(SELECT DISTINCT unnest(ids) FROM public.changes
            WHERE xid >= oldest AND NOT pg_visible_in_snapshot(xid, held.since) AND days @> ARRAY[apply_to_compacted.day]);
        EXECUTE format('DELETE FROM public.%I WHERE id = ANY ($1)', public.compacted_table(day)) USING changed;
        GET DIAGNOSTICS gone = ROW_COUNT;
        EXECUTE format('INSERT INTO public.%I SELECT * FROM public.%I WHERE id = ANY ($1)', public.compacted_table(day), public.day_table(day))
        USING changed;
        GET DIAGNOSTICS came = ROW_COUNT;
        UPDATE public.compactions SET since = later, copied = copied - gone + came;
        RETURN cardinality(changed);
    END
    $$;
COMMENT ON FUNCTION apply_to_compacted(uuid, date) IS 'Brings to the copy of a day what changed since it was last looked at, and says how many rows; NULL if the feed was trimmed past it: the day has to be copied anew.';

CREATE FUNCTION swap_compacted(wanted_by uuid, day date, patience text) RETURNS boolean
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        day_name text := public.day_table(swap_compacted.day);
        copy_name text := public.compacted_table(swap_compacted.day);
        rows_copied bigint;
        rows_counted bigint;
        index_name name;
    BEGIN
        IF NOT EXISTS (SELECT FROM public.days() AS attached WHERE attached = swap_compacted.day) THEN
            RETURN false;
        END IF;
        PERFORM public.hold_day(day_name, patience);
        IF NOT EXISTS (SELECT FROM public.days() AS attached WHERE attached = swap_compacted.day)
            OR public.apply_to_compacted(wanted_by, swap_compacted.day) IS NULL THEN
            RETURN false;
        END IF;
        -- Nobody writes: the counts are those of the day. A copy that lacks a row does not take its place.
        SELECT c.copied INTO rows_copied FROM public.compactions AS c;
        SELECT coalesce(sum(c.entries), 0) INTO rows_counted FROM public.connection_log_counts AS c WHERE c.day = swap_compacted.day;
        IF rows_copied <> rows_counted THEN
            RAISE EXCEPTION 'the copy of table % has % rows, and % are counted', day_name, rows_copied, rows_counted
                USING ERRCODE = 'CL004', TABLE = day_name, HINT = 'compare the rows of the day with connection_log_counts';
        END IF;
        EXECUTE format('ALTER TABLE public.connection_logs DETACH PARTITION public.%I', day_name);
        EXECUTE format('DROP TABLE public.%I', day_name);
        EXECUTE format('ALTER TABLE public.%I RENAME TO %I', copy_name, day_name);
        FOR index_name IN
            SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
            WHERE indrelid = format('public.%I', day_name)::regclass AND starts_with(relname, copy_name)
        LOOP
            EXECUTE format('ALTER INDEX public.%I RENAME TO %I', index_name, replace(index_name, copy_name, day_name));
        END LOOP;
        PERFORM public.grant_day(day_name);
        EXECUTE format('ALTER TABLE public.connection_logs ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            day_name, public.start_of(swap_compacted.day), public.start_of(swap_compacted.day + 1));
        EXECUTE format('ALTER TABLE public.%I DROP CONSTRAINT %I', day_name, copy_name || '_day');
        EXECUTE format('ALTER TABLE public.%I RESET (autovacuum_enabled)', day_name);
        PERFORM public.fold_counts(swap_compacted.day);
        DELETE FROM public.compactions;
        RETURN true;
    END
    $$;
COMMENT ON FUNCTION swap_compacted(uuid, date, text) IS 'Puts the copy of a day in its place, with what changed meanwhile, and folds the shards of its counts; false if it has to be copied anew, or the day is gone.';

CREATE FUNCTION fold_counts(day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    BEGIN
        -- In the order of writers.
        PERFORM FROM public.connection_log_counts AS c WHERE c.day = fold_counts.day
        ORDER BY c.organization_id, c.method, c.app_name, c.shard FOR UPDATE;
        WITH gone AS (
            DELETE FROM public.connection_log_counts AS c WHERE c.day = fold_counts.day AND c.shard <> 0
            RETURNING c.organization_id, c.method, c.app_name, c.entries, c.ended
        )
        INSERT INTO public.connection_log_counts AS c (day, organization_id, method, app_name, shard, entries, ended)
        SELECT fold_counts.day, organization_id, method, app_name, 0, sum(entries), sum(ended) FROM gone GROUP BY 2, 3, 4 ORDER BY 2, 3, 4
        ON CONFLICT ON CONSTRAINT connection_log_counts_pkey DO UPDATE
        SET entries = c.entries + excluded.entries, ended = c.ended + excluded.ended;
    END
    $$;
COMMENT ON FUNCTION fold_counts(date) IS 'Folds the shards of the counts of a day into one.';

-- Whoever may execute one of them is named in crates/store/src/roles.rs.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
