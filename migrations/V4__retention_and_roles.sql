-- Retention of everything else, and what the roles of the services may do: deleting is done by functions of the owner.

ALTER TABLE purge_runs ALTER COLUMN cutoff DROP NOT NULL;
ALTER TABLE purge_runs
    ADD COLUMN retention_seconds bigint,
    ADD COLUMN rejected_removed bigint NOT NULL DEFAULT 0,
    ADD COLUMN lost_removed bigint NOT NULL DEFAULT 0,
    ADD COLUMN audit_removed bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN purge_runs.cutoff IS 'What of the log lay strictly before was due; NULL if the log is kept for ever.';
COMMENT ON COLUMN purge_runs.retention_seconds IS 'How long the log was kept; NULL if for ever.';
COMMENT ON COLUMN purge_runs.rejected_removed IS 'Dead letters removed.';
COMMENT ON COLUMN purge_runs.lost_removed IS 'Records of losses removed.';
COMMENT ON COLUMN purge_runs.audit_removed IS 'Records of uses of the API removed.';

CREATE FUNCTION trim_day(day date, cutoff timestamptz, most bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
    DECLARE
        rows_gone bigint;
    BEGIN
        IF to_regclass(day_table(day)) IS NULL THEN
            RETURN 0;
        END IF;
        -- Rows that someone else holds are left for the next round.
        EXECUTE format('
            WITH due AS (
                SELECT ctid FROM %1$I WHERE connect_time < $1 ORDER BY connect_time LIMIT $2 FOR UPDATE SKIP LOCKED
            ), gone AS (
                DELETE FROM %1$I h USING due WHERE h.ctid = due.ctid
                RETURNING h.organization_id, h.method, coalesce(h.app_name, '''') AS app_name
            ), counted AS (
                INSERT INTO connection_log_counts AS c (day, organization_id, method, app_name, shard, entries)
                SELECT $3, organization_id, method, app_name, 0, -count(*) FROM gone GROUP BY 2, 3, 4 ORDER BY 2, 3, 4
                ON CONFLICT (day, organization_id, method, app_name, shard) DO UPDATE SET entries = c.entries + excluded.entries
            )
            SELECT count(*) FROM gone', day_table(day))
        INTO rows_gone USING cutoff, most, day;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION trim_day(date, timestamptz, bigint) IS 'Deletes rows of a UTC day that lie strictly before the cutoff, the oldest first and so many at most, with their counts, and says how many.';

CREATE FUNCTION due_open(cutoff timestamptz, live_since timestamptz) RETURNS SETOF uuid
    LANGUAGE sql STABLE
    SET search_path = public, pg_temp
    AS $$
        SELECT o.id FROM open_connections o
        WHERE o.connect_time < cutoff AND NOT (o.boot_id IS NOT NULL AND (
            EXISTS (SELECT FROM agent_presence p WHERE p.agent_id = o.agent_id AND p.last_seen_at >= live_since)
            OR NOT EXISTS (SELECT FROM ingest_attendance WHERE heard_since < live_since AND attended_at >= live_since)))
    $$;
COMMENT ON FUNCTION due_open(timestamptz, timestamptz) IS 'Open connections from before the cutoff, but for those that a live agent streams: what it no longer lists is closed within two heartbeats. While no ingest attends, or not for long enough, nobody can have been heard, and everybody counts as alive.';

CREATE FUNCTION remove_open(cutoff timestamptz, live_since timestamptz, most bigint) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
        WITH due AS (
            SELECT id FROM open_connections WHERE id IN (SELECT due_open(cutoff, live_since))
            ORDER BY id LIMIT most FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM open_connections WHERE id IN (SELECT id FROM due) RETURNING 1
        )
        SELECT count(*) FROM gone
    $$;
COMMENT ON FUNCTION remove_open(timestamptz, timestamptz, bigint) IS 'Deletes open connections that are due, so many at most, and says how many.';

CREATE FUNCTION remove_records(kind text, cutoff timestamptz, most bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
    DECLARE
        time_column text := CASE kind WHEN 'rejected_events' THEN 'received_at' WHEN 'lost_events' THEN 'recorded_at'
            WHEN 'api_audit' THEN 'at' WHEN 'agent_presence' THEN 'last_seen_at' END;
        rows_gone bigint;
    BEGIN
        IF time_column IS NULL THEN
            RAISE EXCEPTION 'there are no records of kind %', kind USING ERRCODE = 'invalid_parameter_value';
        END IF;
        EXECUTE format('DELETE FROM %1$I WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM %1$I WHERE %2$I < $1 ORDER BY %2$I LIMIT $2 FOR UPDATE SKIP LOCKED))', kind, time_column)
        USING cutoff, most;
        GET DIAGNOSTICS rows_gone = ROW_COUNT;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION remove_records(text, timestamptz, bigint) IS 'Deletes dead letters, losses, uses of the API, or what is known of agents that fell silent, from strictly before the cutoff, so many at most, and says how many.';

-- A function that acts with the rights of its owner must not find what its caller put into a schema of temporary objects.
ALTER FUNCTION drop_day(date) SET search_path = public, pg_temp;
ALTER FUNCTION days() SET search_path = public, pg_temp;

CREATE FUNCTION raise_floor(wanted timestamptz, retention_seconds double precision) RETURNS timestamptz
    LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
        UPDATE retention_floor
        SET cutoff = greatest(cutoff, least(wanted, clock_timestamp() - make_interval(secs => retention_seconds)))
        RETURNING cutoff
    $$;
COMMENT ON FUNCTION raise_floor(timestamptz, double precision) IS 'Raises the retention floor, but not past the clock less the retention, and returns it. It never falls.';

REVOKE EXECUTE ON FUNCTION attach_day(date), drop_day(date), take_inferred(uuid[], timestamptz, timestamptz),
    trim_day(date, timestamptz, bigint), raise_floor(timestamptz, double precision), remove_open(timestamptz, timestamptz, bigint),
    remove_records(text, timestamptz, bigint) FROM PUBLIC;
