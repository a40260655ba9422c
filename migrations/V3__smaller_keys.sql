-- The keys of history are `id` alone, not `id` and `connect_time`: a third smaller. A parent cannot have such a unique index, so
-- each day gets its own, for web events, whose idempotence it is; connections are held apart by their keys in open_connections.
-- Rebuilds one index of all history: some 6 s at 10 M rows, during which writers wait.

DROP INDEX connection_logs_id;
CREATE INDEX connection_logs_session_id ON connection_logs (id) WHERE method <= 2;
COMMENT ON INDEX connection_logs_session_id IS 'The write path''s look-up of connections to agents; one entry of the API.';

DO $$
DECLARE
    partition_name text;
BEGIN
    FOR partition_name IN SELECT day_table(day) FROM days() AS day LOOP
        BEGIN
            EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id) WHERE method >= 3', partition_name || '_event_id', partition_name);
        EXCEPTION WHEN unique_violation THEN
            -- A reporter used one event_id for several events of a day. All stay; the later ones get an id of their own.
            EXECUTE format('UPDATE %1$I AS later SET id = gen_random_uuid(), changed_xid = pg_current_xact_id() WHERE method >= 3 AND EXISTS (SELECT FROM %1$I AS earlier '
                'WHERE earlier.id = later.id AND earlier.method >= 3 AND earlier.connect_time < later.connect_time)', partition_name);
            EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id) WHERE method >= 3', partition_name || '_event_id', partition_name);
        END;
        EXECUTE format('COMMENT ON INDEX %I IS %L', partition_name || '_event_id',
            'The idempotence of web events; one entry of the API.');
    END LOOP;
END
$$;

-- Functions that act with the rights of their owner must not find what their caller put into a schema of temporary objects:
-- it is searched last.
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
        EXECUTE format('CREATE UNIQUE INDEX %I ON %I (id) WHERE method >= 3', partition_name || '_event_id', partition_name);
        EXECUTE format('COMMENT ON INDEX %I IS %L', partition_name || '_event_id',
            'The idempotence of web events; one entry of the API.');
        -- Searches for somebody name the partitions; rights on the parent do not reach them then.
        -- Roles are the server's: whether this database has them shows in who owns it.
        IF (SELECT relowner FROM pg_class WHERE oid = 'connection_logs'::regclass) = to_regrole('connlog_owner')::oid THEN
            EXECUTE format('GRANT SELECT ON %I TO connlog_query', partition_name);
        END IF;
        EXECUTE format('ALTER TABLE connection_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
            partition_name, utc_start, utc_end);
        RETURN true;
    END
    $$;

CREATE OR REPLACE FUNCTION take_inferred(ids uuid[], earliest timestamptz, latest timestamptz) RETURNS SETOF connection_logs
    LANGUAGE sql SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$
        DELETE FROM connection_logs
        WHERE id = ANY (ids) AND method <= 2 AND connect_time >= earliest AND connect_time < latest AND disconnect_inferred
        RETURNING *
    $$;
