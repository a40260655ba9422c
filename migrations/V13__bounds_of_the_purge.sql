-- The purge removes nothing that is younger than the operator allows, whatever it asks for; who read what is only added to.

ALTER TABLE retention_floor ADD COLUMN minimum interval NOT NULL DEFAULT '0' CHECK (minimum >= '0');
COMMENT ON COLUMN retention_floor.minimum IS 'Nothing younger than this is ever removed. Only the owner changes it.';

CREATE FUNCTION purge_bound() RETURNS timestamptz
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$ SELECT clock_timestamp() - f.minimum FROM public.retention_floor AS f $$;
COMMENT ON FUNCTION purge_bound() IS 'What is not before this time may not be removed: the clock less the minimum retention.';
REVOKE EXECUTE ON FUNCTION purge_bound() FROM PUBLIC;

CREATE OR REPLACE FUNCTION raise_floor(wanted timestamptz, retention_seconds double precision) RETURNS timestamptz
    LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
        UPDATE public.retention_floor
        SET cutoff = greatest(cutoff, least(wanted, clock_timestamp() - greatest(minimum, make_interval(secs => retention_seconds))))
        RETURNING cutoff
    $$;
COMMENT ON FUNCTION raise_floor(timestamptz, double precision) IS 'Raises the retention floor, but not past the clock less the retention and less the minimum, and returns it. It never falls.';

CREATE OR REPLACE FUNCTION drop_day(day date) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        rows_gone bigint;
    BEGIN
        IF (drop_day.day + 1)::timestamp AT TIME ZONE 'UTC' > public.purge_bound() THEN
            RAISE EXCEPTION 'day % is not over, or within the minimum retention', drop_day.day
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        PERFORM pg_advisory_xact_lock(x'636f6e6e'::int, 2);
        -- A table of that name that is not a day is somebody's.
        IF NOT EXISTS (SELECT FROM public.days() AS attached WHERE attached = drop_day.day) THEN
            RETURN 0;
        END IF;
        EXECUTE format('DROP TABLE public.%I', public.day_table(drop_day.day));
        WITH gone AS (DELETE FROM public.connection_log_counts AS counts WHERE counts.day = drop_day.day RETURNING entries)
        SELECT coalesce(sum(entries), 0) INTO rows_gone FROM gone;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION drop_day(date) IS 'Drops a UTC day with its counts, and says how many rows it had; refuses one that is not wholly before purge_bound(). The caller sets lock_timeout: the lock is exclusive.';

CREATE OR REPLACE FUNCTION trim_day(day date, cutoff timestamptz, most bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        rows_gone bigint;
    BEGIN
        IF NOT EXISTS (SELECT FROM public.days() AS attached WHERE attached = trim_day.day) THEN
            RETURN 0;
        END IF;
        -- Rows that someone else holds are left for the next round.
        EXECUTE format('
            WITH due AS (
                SELECT ctid FROM public.%1$I WHERE connect_time < $1 ORDER BY connect_time LIMIT $2 FOR UPDATE SKIP LOCKED
            ), gone AS (
                DELETE FROM public.%1$I h USING due WHERE h.ctid = due.ctid
                RETURNING h.organization_id, h.method, coalesce(h.app_name, '''') AS app_name
            ), counted AS (
                INSERT INTO public.connection_log_counts AS c (day, organization_id, method, app_name, shard, entries)
                SELECT $3, organization_id, method, app_name, 0, -count(*) FROM gone GROUP BY 2, 3, 4 ORDER BY 2, 3, 4
                ON CONFLICT (day, organization_id, method, app_name, shard) DO UPDATE SET entries = c.entries + excluded.entries
            )
            SELECT count(*) FROM gone', public.day_table(trim_day.day))
        INTO rows_gone USING least(trim_day.cutoff, public.purge_bound()), most, trim_day.day;
        RETURN rows_gone;
    END
    $$;
COMMENT ON FUNCTION trim_day(date, timestamptz, bigint) IS 'Deletes rows of a UTC day that lie strictly before the cutoff, but none from after purge_bound(), the oldest first and so many at most, with their counts, and says how many.';

CREATE OR REPLACE FUNCTION remove_open(cutoff timestamptz, live_since timestamptz, most bigint) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
        WITH due AS (
            SELECT id FROM public.open_connections WHERE id IN (
                SELECT public.due_open(least(cutoff, public.purge_bound()), least(live_since, clock_timestamp())))
            ORDER BY id LIMIT most FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM public.open_connections WHERE id IN (SELECT id FROM due) RETURNING 1
        )
        SELECT count(*) FROM gone
    $$;
COMMENT ON FUNCTION remove_open(timestamptz, timestamptz, bigint) IS 'Deletes open connections that are due, but none from after purge_bound(), so many at most, and says how many.';

CREATE OR REPLACE FUNCTION remove_records(kind text, cutoff timestamptz, most bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        time_column text := CASE kind WHEN 'rejected_events' THEN 'received_at' WHEN 'lost_events' THEN 'recorded_at'
            WHEN 'api_audit' THEN 'at' WHEN 'agent_presence' THEN 'last_seen_at' WHEN 'contradictions' THEN 'connect_time' END;
        kept text := '';
        rows_gone bigint;
    BEGIN
        IF time_column IS NULL THEN
            RAISE EXCEPTION 'there are no records of kind %', kind USING ERRCODE = 'invalid_parameter_value';
        END IF;
        cutoff := least(cutoff, public.purge_bound());
        -- What contradicts a connection stays as long as the connection may.
        IF kind = 'contradictions' THEN
            cutoff := least(cutoff, (SELECT f.cutoff FROM public.retention_floor AS f));
            kept := 'AND NOT EXISTS (SELECT FROM public.open_connections AS o WHERE o.id = row_id)';
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
REVOKE EXECUTE ON FUNCTION end_uses(uuid[], bigint[], boolean[]) FROM PUBLIC;
