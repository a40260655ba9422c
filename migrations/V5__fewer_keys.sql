-- Fewer and smaller keys of history: 23 bytes a row less, and some 7 % more events a second (crates/bench/README.md).
-- Reads all of history and makes three indexes on it, during which writers wait: some 45 s at 10 M rows. What they replace goes in
-- version 6: a transaction that reads history and then waits to write to it would deadlock with dropping here.

CREATE TABLE workspace_owners (
    workspace_id    uuid NOT NULL,
    organization_id uuid NOT NULL,
    owner_id        uuid NOT NULL,
    PRIMARY KEY (workspace_id, organization_id, owner_id)
);
COMMENT ON TABLE workspace_owners IS 'Every owner and organization that a workspace ever had: rows of the log keep those of their time. They lead from an owner or a workspace to the keys of connection_logs_home.';
CREATE INDEX workspace_owners_owner ON workspace_owners (owner_id, organization_id);
COMMENT ON INDEX workspace_owners_owner IS 'The filters workspace_owner and workspace_owner_email.';

CREATE FUNCTION note_owner() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
    BEGIN
        INSERT INTO workspace_owners (workspace_id, organization_id, owner_id)
        VALUES (NEW.id, NEW.organization_id, NEW.owner_id) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END
    $$;
COMMENT ON FUNCTION note_owner() IS 'Keeps workspace_owners. A trigger, so that no program can forget it: what is missing there is not found. No role needs a right to it.';
CREATE TRIGGER workspaces_owner AFTER INSERT OR UPDATE OF organization_id, owner_id ON workspaces
    FOR EACH ROW EXECUTE FUNCTION note_owner();

CREATE INDEX workspace_names_workspace ON workspace_names (workspace_id);
COMMENT ON INDEX workspace_names_workspace IS 'Whether a workspace ever had another name.';

ALTER INDEX connection_logs_session_id RENAME TO connection_logs_session_id_before_5;
ALTER INDEX connection_logs_connection RENAME TO connection_logs_connection_before_5;
CREATE INDEX connection_logs_home ON connection_logs (organization_id, workspace_owner_id, workspace_id);
COMMENT ON INDEX connection_logs_home IS 'The filters organization, workspace_owner, workspace_owner_email, workspace and workspace_id, and tokens limited to organizations. workspace_owners has what comes before an owner or a workspace.';
-- By hashes of eight bytes: half the size of the ids, and quicker to insert.
CREATE INDEX connection_logs_session_id ON connection_logs (uuid_hash_extended(id, 0)) WHERE method <= 2;
COMMENT ON INDEX connection_logs_session_id IS 'The write path''s look-up of connections to agents; one entry of the API.';
CREATE INDEX connection_logs_connection ON connection_logs (uuid_hash_extended(connection_id, 0)) WHERE connection_id IS NOT NULL;
COMMENT ON INDEX connection_logs_connection IS 'The filter connection_id.';
-- Expressions of indexes have statistics of their own.
ANALYZE connection_logs;

-- What the log and the directory have by now. After the indexes: they keep writers from adding to it until the end.
INSERT INTO workspace_owners (workspace_id, organization_id, owner_id)
SELECT id, organization_id, owner_id FROM workspaces
UNION SELECT workspace_id, organization_id, workspace_owner_id FROM connection_logs
UNION SELECT workspace_id, organization_id, workspace_owner_id FROM open_connections;
INSERT INTO workspace_names (name_key, workspace_id)
SELECT lower(workspace_name), workspace_id FROM connection_logs
UNION SELECT lower(workspace_name), workspace_id FROM open_connections
ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION take_inferred(ids uuid[], earliest timestamptz, latest timestamptz) RETURNS SETOF connection_logs
    LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
        DELETE FROM connection_logs
        WHERE uuid_hash_extended(id, 0) = ANY (ARRAY(SELECT uuid_hash_extended(wanted, 0) FROM unnest(ids) AS wanted))
            AND id = ANY (ids) AND method <= 2 AND connect_time >= earliest AND connect_time < latest AND disconnect_inferred
        RETURNING *
    $$;
