-- What reading at any size needs: the change feed, kinds of connections by index, workspaces by any name they ever had,
-- and the audit of the API. And what an agent's earlier boot left open is closed at the right time, whatever comes between.

ALTER TABLE agent_presence ADD COLUMN unclosed_since timestamptz;
COMMENT ON COLUMN agent_presence.unclosed_since IS 'The last sign of life of the boot before, until what it left open is closed.';

CREATE INDEX open_connections_changed ON open_connections (changed_xid);
COMMENT ON INDEX open_connections_changed IS 'The change feed.';
CREATE INDEX connection_logs_changed ON connection_logs (changed_xid);
COMMENT ON INDEX connection_logs_changed IS 'The change feed. The rows of a batch share one key, so an entry takes a few bytes.';
CREATE INDEX connection_logs_kind ON connection_logs (method, app_name);
COMMENT ON INDEX connection_logs_kind IS 'The filters method, type and app, where they match little.';

ALTER TABLE workspaces ADD COLUMN name_key text NOT NULL DEFAULT '';
UPDATE workspaces SET name_key = lower(name);
ALTER TABLE workspaces ALTER COLUMN name_key DROP DEFAULT;
COMMENT ON COLUMN workspaces.name_key IS 'The name in lower case, see organizations.name_key.';

CREATE TABLE workspace_names (
    name_key     text NOT NULL,
    workspace_id uuid NOT NULL,
    PRIMARY KEY (name_key, workspace_id)
);
COMMENT ON TABLE workspace_names IS 'Every name that a workspace ever had: rows of the log keep the name of their time. The filter workspace:NAME.';
INSERT INTO workspace_names (name_key, workspace_id) SELECT name_key, id FROM workspaces;

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
