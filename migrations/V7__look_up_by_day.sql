-- The write path looks connections up in the days that it names, by the one index that can answer. That index was partial by
-- `method <= 2`: with that condition the planner took the index of kinds for a day that had just begun, and read all of it with each batch.
-- Makes an index on all of history, during which writers wait: some 30 s at 10 M rows. What it replaces goes in version 8, see version 5.

ALTER INDEX connection_logs_session_id RENAME TO connection_logs_session_id_before_7;
CREATE INDEX connection_logs_session_id ON connection_logs (uuid_hash_extended(id, 0)) WHERE disconnect_time IS NOT NULL;
COMMENT ON INDEX connection_logs_session_id IS 'The write path''s look-up of connections to agents; one entry of the API.';
-- Expressions of indexes have statistics of their own.
ANALYZE connection_logs;

CREATE OR REPLACE FUNCTION take_inferred(ids uuid[], earliest timestamptz, latest timestamptz) RETURNS SETOF connection_logs
    LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
        DELETE FROM connection_logs
        WHERE uuid_hash_extended(id, 0) = ANY (ARRAY(SELECT uuid_hash_extended(wanted, 0) FROM unnest(ids) AS wanted))
            AND id = ANY (ids) AND disconnect_time IS NOT NULL AND connect_time >= earliest AND connect_time < latest AND disconnect_inferred
        RETURNING *
    $$;

CREATE OR REPLACE FUNCTION attach_day(day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
    DECLARE
        partition_name text := day_table(day);
        utc_start timestamptz := day::timestamp AT TIME ZONE 'UTC';
        utc_end timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    BEGIN
        PERFORM pg_advisory_xact_lock(x'636f6e6e'::int, 2);
        -- Not to_regclass: it may not know yet of a day that another transaction made while this one waited.
        IF EXISTS (SELECT FROM pg_class WHERE relname = partition_name AND relnamespace = 'public'::regnamespace) THEN
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
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id) WHERE method >= 3', partition_name || '_event_id', partition_name);
        EXECUTE format('COMMENT ON INDEX %I IS %L', partition_name || '_event_id',
            'The idempotence of web events; one entry of the API.');
        -- Searches for somebody, and the write path's look-up, name the partitions; rights on the parent do not reach them then.
        -- Roles are the server's: whether this database has them shows in who owns it.
        IF (SELECT relowner FROM pg_class WHERE oid = 'connection_logs'::regclass) = to_regrole('connlog_owner')::oid THEN
            EXECUTE format('GRANT SELECT ON %I TO connlog_ingest, connlog_query', partition_name);
        END IF;
        EXECUTE format('ALTER TABLE connection_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            partition_name, utc_start, utc_end);
        RETURN true;
    END
    $$;

DO $$
DECLARE
    day_name text;
BEGIN
    IF (SELECT relowner FROM pg_class WHERE oid = 'connection_logs'::regclass) = to_regrole('connlog_owner')::oid THEN
        FOR day_name IN SELECT day_table(day) FROM days() AS day LOOP
            EXECUTE format('GRANT SELECT ON %I TO connlog_ingest', day_name);
        END LOOP;
    END IF;
END
$$;
