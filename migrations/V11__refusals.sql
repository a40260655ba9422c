-- A table that stands in the way of a day is named, and every table can be in a publication FOR ALL TABLES.

CREATE OR REPLACE FUNCTION attach_day(day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
    AS $$
    DECLARE
        partition_name text := public.day_table(day);
        utc_start timestamptz := day::timestamp AT TIME ZONE 'UTC';
        utc_end timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    BEGIN
        PERFORM pg_advisory_xact_lock(x'636f6e6e'::int, 2);
        -- Not to_regclass: it may not know yet of a day that another transaction made while this one waited.
        IF EXISTS (SELECT FROM pg_class WHERE relname = partition_name AND relnamespace = 'public'::regnamespace) THEN
            IF NOT EXISTS (
                SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
                WHERE inhparent = 'public.connection_logs'::regclass AND relname = partition_name
                    AND relnamespace = 'public'::regnamespace AND NOT inhdetachpending
            ) THEN
                RAISE EXCEPTION 'table % has the name of a day, and is not attached to the log', partition_name
                    USING ERRCODE = 'CL003', TABLE = partition_name, HINT = 'attach it to connection_logs again, or rename it';
            END IF;
            RETURN false;
        END IF;
        IF utc_end <= (SELECT cutoff FROM public.retention_floor) THEN
            RAISE EXCEPTION 'day % lies below the retention floor', day USING ERRCODE = 'CL001';
        END IF;
        IF utc_start > statement_timestamp() + interval '2 days' OR utc_start < statement_timestamp() - interval '3660 days' THEN
            RAISE EXCEPTION 'day % is too far from the present', day USING ERRCODE = 'CL002';
        END IF;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.connection_logs INCLUDING ALL)', partition_name);
        EXECUTE format('ALTER TABLE public.%I SET (autovacuum_vacuum_insert_scale_factor = 0.5)', partition_name);
        EXECUTE format('ALTER TABLE public.%I REPLICA IDENTITY FULL', partition_name);
        EXECUTE format('CREATE UNIQUE INDEX %I ON public.%I (id) WHERE method >= 3', partition_name || '_event_id', partition_name);
        EXECUTE format('COMMENT ON INDEX public.%I IS %L', partition_name || '_event_id',
            'The idempotence of web events; one entry of the API.');
        -- Searches for somebody, and the write path's look-up, name the partitions; rights on the parent do not reach them then.
        -- Roles are the server's: whether this database has them shows in who owns it.
        IF (SELECT relowner FROM pg_class WHERE oid = 'public.connection_logs'::regclass) = to_regrole('connlog_owner')::oid THEN
            EXECUTE format('GRANT SELECT ON public.%I TO connlog_ingest, connlog_query', partition_name);
        END IF;
        EXECUTE format('ALTER TABLE public.connection_logs ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            partition_name, utc_start, utc_end);
        RETURN true;
    END
    $$;

-- Without a replica identity, an UPDATE or DELETE of a published table fails.
DO $$
DECLARE
    table_name regclass;
BEGIN
    FOR table_name IN
        SELECT oid FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
            AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)
    LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', table_name);
    END LOOP;
END
$$;
