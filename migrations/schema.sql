--
-- PostgreSQL database dump
--



SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: public; Type: SCHEMA; Schema: -; Owner: pg_database_owner
--

CREATE SCHEMA public;


ALTER SCHEMA public OWNER TO pg_database_owner;

--
-- Name: SCHEMA public; Type: COMMENT; Schema: -; Owner: pg_database_owner
--

COMMENT ON SCHEMA public IS 'standard public schema';


--
-- Name: apply_to_compacted(uuid, date); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.apply_to_compacted(wanted_by uuid, day date) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
    $_$;


ALTER FUNCTION public.apply_to_compacted(wanted_by uuid, day date) OWNER TO connlog_owner;

--
-- Name: FUNCTION apply_to_compacted(wanted_by uuid, day date); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.apply_to_compacted(wanted_by uuid, day date) IS 'Brings to the copy of a day what changed since it was last looked at, and says how many rows; NULL if the feed was trimmed past it: the day has to be copied anew.';


--
-- Name: attach_day(date); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.attach_day(day date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.attach_day(day date) OWNER TO connlog_owner;

--
-- Name: FUNCTION attach_day(day date); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.attach_day(day date) IS 'Makes the partition of a UTC day if it is missing, and says whether it did. A plain table is made and then attached: CREATE … PARTITION OF would lock out readers and deadlock two writers. Less than half of each page is filled, so that connections end on the page where they began.';


--
-- Name: begin_compaction(uuid, date); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.begin_compaction(wanted_by uuid, day date) RETURNS boolean
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET client_min_messages TO 'warning'
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


ALTER FUNCTION public.begin_compaction(wanted_by uuid, day date) OWNER TO connlog_owner;

--
-- Name: FUNCTION begin_compaction(wanted_by uuid, day date); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.begin_compaction(wanted_by uuid, day date) IS 'Makes an empty table for the run that holds the lease, to rewrite a closed day into; false if there is no such day. One that an earlier run left is dropped.';


--
-- Name: close_days(timestamp with time zone, pg_snapshot, uuid[]); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.close_days(upto timestamp with time zone, collected_at pg_snapshot, collected uuid[]) RETURNS timestamp with time zone
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
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


ALTER FUNCTION public.close_days(upto timestamp with time zone, collected_at pg_snapshot, collected uuid[]) OWNER TO connlog_owner;

--
-- Name: FUNCTION close_days(upto timestamp with time zone, collected_at pg_snapshot, collected uuid[]); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.close_days(upto timestamp with time zone, collected_at pg_snapshot, collected uuid[]) IS 'Closes the days before upto, but none that ended less than 24 hours ago, and none from one on that is not attached: lists what is open of them, which the caller collected after it took a snapshot, and what changed since. Returns closed_before; NULL: the caller has to collect anew. The caller sets lock_timeout.';


--
-- Name: compacted_table(date); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.compacted_table(day date) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT 'compacted_' || to_char(day, 'YYYYMMDD') $$;


ALTER FUNCTION public.compacted_table(day date) OWNER TO connlog_owner;

--
-- Name: FUNCTION compacted_table(day date); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.compacted_table(day date) IS 'The name of the table that a day is rewritten into.';


--
-- Name: copy_compacted(uuid, date, bigint); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.copy_compacted(wanted_by uuid, day date, most bigint) RETURNS boolean
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
    $_$;


ALTER FUNCTION public.copy_compacted(wanted_by uuid, day date, most bigint) OWNER TO connlog_owner;

--
-- Name: FUNCTION copy_compacted(wanted_by uuid, day date, most bigint); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.copy_compacted(wanted_by uuid, day date, most bigint) IS 'Copies the next rows of a day, in order, and says whether there are more: a transaction of its own for each part, so that the change feed is not held up.';


--
-- Name: day_table(date); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.day_table(day date) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT 'connection_logs_' || to_char(day, 'YYYYMMDD') $$;


ALTER FUNCTION public.day_table(day date) OWNER TO connlog_owner;

--
-- Name: FUNCTION day_table(day date); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.day_table(day date) IS 'The name of the partition of a UTC day.';


--
-- Name: days(); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.days() RETURNS SETOF date
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
        SELECT to_date(right(child.relname, 8), 'YYYYMMDD')
        FROM pg_inherits
        JOIN pg_class AS child ON child.oid = inhrelid
        WHERE inhparent = 'public.connection_logs'::regclass AND NOT inhdetachpending AND child.relname ~ '^connection_logs_[0-9]{8}$'
        ORDER BY 1
    $_$;


ALTER FUNCTION public.days() OWNER TO connlog_owner;

--
-- Name: FUNCTION days(); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.days() IS 'The UTC days that have a partition, oldest first. One that is being detached has none, and somebody''s partition of another name is no day.';


--
-- Name: drop_day(date, text); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.drop_day(day date, patience text) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.drop_day(day date, patience text) OWNER TO connlog_owner;

--
-- Name: FUNCTION drop_day(day date, patience text); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.drop_day(day date, patience text) IS 'Drops a closed UTC day with its counts, and says how many rows it had; NULL if something of it is open, or it is not closed. Refuses one that is not wholly before purge_bound().';


--
-- Name: due_open(timestamp with time zone, timestamp with time zone); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.due_open(cutoff timestamp with time zone, live_since timestamp with time zone) RETURNS TABLE(id uuid, connect_time timestamp with time zone, agent bigint)
    LANGUAGE plpgsql STABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_custom_plan'
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


ALTER FUNCTION public.due_open(cutoff timestamp with time zone, live_since timestamp with time zone) OWNER TO connlog_owner;

--
-- Name: FUNCTION due_open(cutoff timestamp with time zone, live_since timestamp with time zone); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.due_open(cutoff timestamp with time zone, live_since timestamp with time zone) IS 'Open connections from before the cutoff, but for those of a boot, if the agent, or a reporter that speaks for it, was heard since live_since: what is no longer listed is closed soon.';


--
-- Name: end_uses(uuid[], bigint[], boolean[]); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.end_uses(ids uuid[], row_counts bigint[], completeness boolean[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
        UPDATE public.api_audit AS a SET rows = k.rows, complete = k.complete
        FROM unnest(ids, row_counts, completeness) AS k (id, rows, complete)
        WHERE a.id = k.id AND a.rows IS NULL AND a.complete IS NULL AND (k.rows IS NOT NULL OR k.complete IS NOT NULL)
    $$;


ALTER FUNCTION public.end_uses(ids uuid[], row_counts bigint[], completeness boolean[]) OWNER TO connlog_owner;

--
-- Name: FUNCTION end_uses(ids uuid[], row_counts bigint[], completeness boolean[]); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.end_uses(ids uuid[], row_counts bigint[], completeness boolean[]) IS 'Notes, once, how uses of the API that were still running ended. What is noted stays.';


--
-- Name: fold_counts(date); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.fold_counts(day date) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.fold_counts(day date) OWNER TO connlog_owner;

--
-- Name: FUNCTION fold_counts(day date); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.fold_counts(day date) IS 'Folds the shards of the counts of a day into one.';


--
-- Name: give_purge_lease(uuid); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.give_purge_lease(held_by uuid) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ UPDATE public.purge_lease SET holder = NULL WHERE holder = held_by $$;


ALTER FUNCTION public.give_purge_lease(held_by uuid) OWNER TO connlog_owner;

--
-- Name: FUNCTION give_purge_lease(held_by uuid); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.give_purge_lease(held_by uuid) IS 'Gives it back.';


--
-- Name: grant_day(text); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.grant_day(partition_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.grant_day(partition_name text) OWNER TO connlog_owner;

--
-- Name: FUNCTION grant_day(partition_name text); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.grant_day(partition_name text) IS 'Gives the services their rights to a day: statements name days, and a right to the parent does not reach those. Ingest may fill in and end; it may not change what a row is about or when it began, and delete nothing.';


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: compactions; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.compactions (
    one boolean DEFAULT true NOT NULL,
    day date NOT NULL,
    run uuid NOT NULL,
    since pg_snapshot NOT NULL,
    after_time timestamp with time zone NOT NULL,
    after_id uuid NOT NULL,
    copied bigint DEFAULT 0 NOT NULL,
    is_copied boolean DEFAULT false NOT NULL,
    is_indexed boolean DEFAULT false NOT NULL,
    CONSTRAINT compactions_one_check CHECK (one)
);


ALTER TABLE public.compactions OWNER TO connlog_owner;

--
-- Name: TABLE compactions; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.compactions IS 'How far the copy of a closed day is. Only functions change it: nobody else can say that a copy is whole.';


--
-- Name: COLUMN compactions.run; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.compactions.run IS 'The run of connlog-purge that makes the copy. Another one that begins takes it over.';


--
-- Name: COLUMN compactions.since; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.compactions.since IS 'Changes that are not visible in this snapshot are not in the copy yet.';


--
-- Name: COLUMN compactions.after_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.compactions.after_time IS 'The last row that was copied: its connect_time.';


--
-- Name: COLUMN compactions.after_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.compactions.after_id IS 'The last row that was copied: its id.';


--
-- Name: COLUMN compactions.copied; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.compactions.copied IS 'Rows that the copy has.';


--
-- Name: COLUMN compactions.is_copied; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.compactions.is_copied IS 'Whether the whole day was copied.';


--
-- Name: COLUMN compactions.is_indexed; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.compactions.is_indexed IS 'Whether it has its indexes, too.';


--
-- Name: hold_compaction(uuid, date); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.hold_compaction(wanted_by uuid, wanted date) RETURNS public.compactions
    LANGUAGE plpgsql STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.hold_compaction(wanted_by uuid, wanted date) OWNER TO connlog_owner;

--
-- Name: FUNCTION hold_compaction(wanted_by uuid, wanted date); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.hold_compaction(wanted_by uuid, wanted date) IS 'Locks the state of a compaction, if it is still that of the run.';


--
-- Name: hold_day(text, text); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.hold_day(partition_name text, patience text) RETURNS void
    LANGUAGE plpgsql STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.hold_day(partition_name text, patience text) OWNER TO connlog_owner;

--
-- Name: FUNCTION hold_day(partition_name text, patience text); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.hold_day(partition_name text, patience text) IS 'Locks a day against vacuum, and then the log against everybody, which may wait for no longer than patience.';


--
-- Name: index_compacted(uuid, date); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.index_compacted(wanted_by uuid, day date) RETURNS boolean
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.index_compacted(wanted_by uuid, day date) OWNER TO connlog_owner;

--
-- Name: FUNCTION index_compacted(wanted_by uuid, day date); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.index_compacted(wanted_by uuid, day date) IS 'Gives the copy of a day the next of the indexes of a day, and says whether there are more: a transaction of its own for each.';


--
-- Name: note_read(text, uuid, uuid); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.note_read(consumer text, read_anchor uuid, reader uuid) RETURNS boolean
    LANGUAGE sql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
        UPDATE public.feed_consumers AS f
        SET anchor = CASE WHEN c.xid > f.xid THEN c.anchor ELSE f.anchor END, xid = greatest(f.xid, c.xid), token_id = reader,
            seen_at = clock_timestamp()
        FROM public.changes AS c WHERE f.name = consumer AND c.anchor = read_anchor AND coalesce(f.token_id, reader) = reader
        RETURNING true
    $$;


ALTER FUNCTION public.note_read(consumer text, read_anchor uuid, reader uuid) OWNER TO connlog_owner;

--
-- Name: FUNCTION note_read(consumer text, read_anchor uuid, reader uuid); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.note_read(consumer text, read_anchor uuid, reader uuid) IS 'Notes how far a consumer has read, and that it is the reader''s; NULL if there is no such consumer or change, or it is another reader''s.';


--
-- Name: purge_bound(); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.purge_bound() RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT clock_timestamp() - f.minimum FROM public.floor AS f $$;


ALTER FUNCTION public.purge_bound() OWNER TO connlog_owner;

--
-- Name: FUNCTION purge_bound(); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.purge_bound() IS 'What is not before this time may not be removed: the clock less the minimum retention.';


--
-- Name: raise_floor(timestamp with time zone, double precision); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.raise_floor(wanted timestamp with time zone, retention_seconds double precision) RETURNS timestamp with time zone
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.raise_floor(wanted timestamp with time zone, retention_seconds double precision) OWNER TO connlog_owner;

--
-- Name: FUNCTION raise_floor(wanted timestamp with time zone, retention_seconds double precision); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.raise_floor(wanted timestamp with time zone, retention_seconds double precision) IS 'Raises the retention floor, but not past the clock less the retention and less the minimum, and returns it. It never falls. The caller sets lock_timeout.';


--
-- Name: remove_open(timestamp with time zone, timestamp with time zone, bigint); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.remove_open(cutoff timestamp with time zone, live_since timestamp with time zone, most bigint) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
    $_$;


ALTER FUNCTION public.remove_open(cutoff timestamp with time zone, live_since timestamp with time zone, most bigint) OWNER TO connlog_owner;

--
-- Name: FUNCTION remove_open(cutoff timestamp with time zone, live_since timestamp with time zone, most bigint); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.remove_open(cutoff timestamp with time zone, live_since timestamp with time zone, most bigint) IS 'Deletes open connections that are due, under the locks of their agents, but none from after purge_bound(), so many at most, and says how many.';


--
-- Name: remove_records(text, timestamp with time zone, bigint); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.remove_records(kind text, cutoff timestamp with time zone, most bigint) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
    $_$;


ALTER FUNCTION public.remove_records(kind text, cutoff timestamp with time zone, most bigint) OWNER TO connlog_owner;

--
-- Name: FUNCTION remove_records(kind text, cutoff timestamp with time zone, most bigint); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.remove_records(kind text, cutoff timestamp with time zone, most bigint) IS 'Deletes dead letters, losses, uses of the API, contradictions, or what is known of agents that fell silent, from strictly before the cutoff, but none from after purge_bound(), so many at most, and says how many.';


--
-- Name: restart_feed(); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.restart_feed() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.restart_feed() OWNER TO connlog_owner;

--
-- Name: FUNCTION restart_feed(); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.restart_feed() IS 'Begins the feed anew if it has changes of transactions that are yet to come: it was restored into a younger server. Every position is void then.';


--
-- Name: start_of(date); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.start_of(day date) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT day::timestamp AT TIME ZONE 'UTC' $$;


ALTER FUNCTION public.start_of(day date) OWNER TO connlog_owner;

--
-- Name: FUNCTION start_of(day date); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.start_of(day date) IS 'The first instant of a UTC day.';


--
-- Name: swap_compacted(uuid, date, text); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.swap_compacted(wanted_by uuid, day date, patience text) RETURNS boolean
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.swap_compacted(wanted_by uuid, day date, patience text) OWNER TO connlog_owner;

--
-- Name: FUNCTION swap_compacted(wanted_by uuid, day date, patience text); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.swap_compacted(wanted_by uuid, day date, patience text) IS 'Puts the copy of a day in its place, with what changed meanwhile, and folds the shards of its counts; false if it has to be copied anew, or the day is gone.';


--
-- Name: take_purge_lease(uuid); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.take_purge_lease(wanted_by uuid) RETURNS boolean
    LANGUAGE sql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
        UPDATE public.purge_lease SET holder = wanted_by, expires_at = clock_timestamp() + interval '1 minute'
        WHERE holder IS NULL OR holder = wanted_by OR expires_at < clock_timestamp()
        RETURNING true
    $$;


ALTER FUNCTION public.take_purge_lease(wanted_by uuid) OWNER TO connlog_owner;

--
-- Name: FUNCTION take_purge_lease(wanted_by uuid); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.take_purge_lease(wanted_by uuid) IS 'Takes the right to purge and compact for a minute, or prolongs it; NULL if another run holds it.';


--
-- Name: take_unknown_starts(date, uuid[]); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.take_unknown_starts(day date, wanted uuid[]) RETURNS SETOF uuid
    LANGUAGE plpgsql STRICT SECURITY DEFINER ROWS 10
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    BEGIN
        IF EXISTS (SELECT FROM public.days() AS attached WHERE attached = take_unknown_starts.day) THEN
            RETURN QUERY EXECUTE format('DELETE FROM public.%I WHERE id = ANY ($1) AND start_source IS NULL RETURNING id',
                public.day_table(take_unknown_starts.day)) USING wanted;
        END IF;
    END
    $_$;


ALTER FUNCTION public.take_unknown_starts(day date, wanted uuid[]) OWNER TO connlog_owner;

--
-- Name: FUNCTION take_unknown_starts(day date, wanted uuid[]); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.take_unknown_starts(day date, wanted uuid[]) IS 'Takes rows whose beginning nobody said out of a day, so that they can be written where they belong. Others stay. What ingest may delete, and no more.';


--
-- Name: trim_changes(timestamp with time zone, bigint); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.trim_changes(kept_since timestamp with time zone, max_bytes bigint) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
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


ALTER FUNCTION public.trim_changes(kept_since timestamp with time zone, max_bytes bigint) OWNER TO connlog_owner;

--
-- Name: FUNCTION trim_changes(kept_since timestamp with time zone, max_bytes bigint); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.trim_changes(kept_since timestamp with time zone, max_bytes bigint) IS 'Removes the oldest changes, up to those of kept_since and 100,000 transactions at most, and says how many. What a consumer has not read stays, unless all that is kept for consumers takes more than max_bytes: then each of them is told of its gap.';


--
-- Name: trim_day(date, timestamp with time zone, bigint); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.trim_day(day date, cutoff timestamp with time zone, most bigint) RETURNS bigint
    LANGUAGE plpgsql STRICT SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
    $_$;


ALTER FUNCTION public.trim_day(day date, cutoff timestamp with time zone, most bigint) OWNER TO connlog_owner;

--
-- Name: FUNCTION trim_day(day date, cutoff timestamp with time zone, most bigint); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.trim_day(day date, cutoff timestamp with time zone, most bigint) IS 'Deletes rows of a UTC day that have ended and lie strictly before the cutoff, but none from after purge_bound(), the oldest first and so many at most, with their counts, and says how many.';


--
-- Name: unattached_days(); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.unattached_days() RETURNS SETOF date
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
        SELECT to_date(right(relname, 8), 'YYYYMMDD') FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname ~ '^connection_logs_[0-9]{8}$'
            AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid AND NOT inhdetachpending)
        ORDER BY 1
    $_$;


ALTER FUNCTION public.unattached_days() OWNER TO connlog_owner;

--
-- Name: FUNCTION unattached_days(); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.unattached_days() IS 'The UTC days whose tables are there and not attached to the log, oldest first: somebody detached them, and may attach them again.';


--
-- Name: uncompacted_days(); Type: FUNCTION; Schema: public; Owner: connlog_owner
--

CREATE FUNCTION public.uncompacted_days() RETURNS SETOF date
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
    $_$;


ALTER FUNCTION public.uncompacted_days() OWNER TO connlog_owner;

--
-- Name: FUNCTION uncompacted_days(); Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON FUNCTION public.uncompacted_days() IS 'The closed days whose pages still have room for changes, or of which a twentieth came or ended since they were compacted; oldest first.';


--
-- Name: agent_spools; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.agent_spools (
    agent bigint NOT NULL,
    spool_id uuid NOT NULL,
    agent_id uuid,
    boot_id uuid NOT NULL,
    stream_id uuid NOT NULL,
    committed_seq bigint,
    earlier_boot_seq bigint NOT NULL,
    last_seen_at timestamp with time zone NOT NULL,
    unclosed_since timestamp with time zone
)
WITH (fillfactor='50');


ALTER TABLE public.agent_spools OWNER TO connlog_owner;

--
-- Name: TABLE agent_spools; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.agent_spools IS 'What is known of each spool of an agent that streams, and of each reporter that speaks for an agent. Changed under the lock of the agent.';


--
-- Name: COLUMN agent_spools.agent_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agent_spools.agent_id IS 'The agent of the directory that said Hello with it, or that a reporter speaks for: then spool_id and stream_id are the id of the reporter''s token.';


--
-- Name: COLUMN agent_spools.boot_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agent_spools.boot_id IS 'The boot that last said Hello with it.';


--
-- Name: COLUMN agent_spools.stream_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agent_spools.stream_id IS 'The stream that owns it now; an older one that finds another id here gives way.';


--
-- Name: COLUMN agent_spools.committed_seq; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agent_spools.committed_seq IS 'Everything up to this sequence number is in the log, rejected, or recorded as lost; NULL until the first commit.';


--
-- Name: COLUMN agent_spools.earlier_boot_seq; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agent_spools.earlier_boot_seq IS 'Events up to this sequence number were in the spool when the boot began, and may be of an earlier one.';


--
-- Name: COLUMN agent_spools.last_seen_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agent_spools.last_seen_at IS 'The last sign of life, by the clock of the ingest that had it.';


--
-- Name: COLUMN agent_spools.unclosed_since; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agent_spools.unclosed_since IS 'The last sign of life of the boot before, until what it left open is closed.';


--
-- Name: agent_tokens; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.agent_tokens (
    sha256 bytea NOT NULL,
    agent_id uuid NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone
);


ALTER TABLE public.agent_tokens OWNER TO connlog_owner;

--
-- Name: TABLE agent_tokens; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.agent_tokens IS 'Credentials of agents: the SHA-256 of each token.';


--
-- Name: COLUMN agent_tokens.expires_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agent_tokens.expires_at IS '24 h after the token was replaced, or its agent or workspace deleted, so that a spool can drain.';


--
-- Name: COLUMN agent_tokens.revoked_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agent_tokens.revoked_at IS 'From then on it is not accepted, whatever a directory says of it later.';


--
-- Name: agents; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.agents (
    agent bigint NOT NULL,
    workspace_id uuid NOT NULL,
    agent_name text NOT NULL,
    open_since timestamp with time zone
)
WITH (fillfactor='50');


ALTER TABLE public.agents OWNER TO connlog_owner;

--
-- Name: TABLE agents; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.agents IS 'One row for each agent of a workspace, and the lock of the log: whoever writes connections of an agent holds its row.';


--
-- Name: COLUMN agents.agent; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agents.agent IS 'The first eight bytes of the HMAC of workspace and name (crates/store, numbers.rs).';


--
-- Name: COLUMN agents.open_since; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.agents.open_since IS 'What is open of the agent began at this time or later; NULL if nothing is. Lowered with each connection that is left open, raised when somebody looks.';


--
-- Name: api_audit; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.api_audit (
    id uuid NOT NULL,
    at timestamp with time zone NOT NULL,
    token_id uuid NOT NULL,
    user_id uuid,
    address inet,
    endpoint text NOT NULL,
    query text NOT NULL,
    format text,
    status smallint NOT NULL,
    rows bigint,
    complete boolean
);


ALTER TABLE public.api_audit OWNER TO connlog_owner;

--
-- Name: TABLE api_audit; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.api_audit IS 'Who read what through connlog-query: one row for each request with a recognized token.';


--
-- Name: COLUMN api_audit.address; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.api_audit.address IS 'The address of the peer: of a proxy, if there is one.';


--
-- Name: COLUMN api_audit.query; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.api_audit.query IS 'The search, in its own words; empty is everything.';


--
-- Name: COLUMN api_audit.rows; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.api_audit.rows IS 'How many entries were given; NULL if the endpoint gives none, or the request still runs.';


--
-- Name: COLUMN api_audit.complete; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.api_audit.complete IS 'Of an export or a tail: whether it came to its end; NULL while it runs.';


--
-- Name: api_tokens; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.api_tokens (
    id uuid NOT NULL,
    sha256 bytea NOT NULL,
    role text NOT NULL,
    user_id uuid,
    organizations uuid[],
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT api_tokens_role_check CHECK ((role = ANY (ARRAY['auditor'::text, 'reporter'::text, 'admin'::text])))
);


ALTER TABLE public.api_tokens OWNER TO connlog_owner;

--
-- Name: TABLE api_tokens; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.api_tokens IS 'Credentials of auditors, reporters and administrators: the SHA-256 of each token.';


--
-- Name: COLUMN api_tokens.user_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.api_tokens.user_id IS 'Whom `me` means; NULL for a token without a user.';


--
-- Name: COLUMN api_tokens.organizations; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.api_tokens.organizations IS 'The only organizations whose entries the token reaches; NULL is all.';


--
-- Name: browser_secrets; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.browser_secrets (
    sha256 bytea NOT NULL,
    session_id uuid NOT NULL,
    made_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone
);


ALTER TABLE public.browser_secrets OWNER TO connlog_owner;

--
-- Name: TABLE browser_secrets; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.browser_secrets IS 'Secrets in cookies of the dashboard: the newest of each session, and those that it replaced within a day.';


--
-- Name: COLUMN browser_secrets.seen_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.browser_secrets.seen_at IS 'When it was first seen; NULL until then. A minute after that, those made before it are no longer good.';


--
-- Name: browser_sessions; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.browser_sessions (
    id uuid NOT NULL,
    token_id uuid NOT NULL,
    started_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    ip inet NOT NULL,
    user_agent text NOT NULL,
    CONSTRAINT browser_sessions_user_agent_check CHECK ((length(user_agent) <= 300))
);


ALTER TABLE public.browser_sessions OWNER TO connlog_owner;

--
-- Name: TABLE browser_sessions; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.browser_sessions IS 'Sessions of the dashboard that go on (crates/store, browser.rs).';


--
-- Name: COLUMN browser_sessions.token_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.browser_sessions.token_id IS 'The token that signed in: the session may do what it may, and ends with it.';


--
-- Name: COLUMN browser_sessions.seen_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.browser_sessions.seen_at IS 'When the session was used last, to a minute.';


--
-- Name: COLUMN browser_sessions.expires_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.browser_sessions.expires_at IS 'When it ends, however much it is used.';


--
-- Name: COLUMN browser_sessions.ip; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.browser_sessions.ip IS 'From where somebody signed in.';


--
-- Name: COLUMN browser_sessions.user_agent; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.browser_sessions.user_agent IS 'With what, as the browser said.';


--
-- Name: changes; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.changes (
    anchor uuid DEFAULT gen_random_uuid() NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ids uuid[] NOT NULL,
    days date[] NOT NULL
);
ALTER TABLE ONLY public.changes ALTER COLUMN ids SET STORAGE EXTERNAL;


ALTER TABLE public.changes OWNER TO connlog_owner;

--
-- Name: TABLE changes; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.changes IS 'The change feed: one row for each transaction that changed the log. The oldest are trimmed; one row always stays.';


--
-- Name: COLUMN changes.anchor; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.changes.anchor IS 'Names the change at random: a position that names one that is not here is of another database, from before a restore, or older than what is kept.';


--
-- Name: COLUMN changes.xid; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.changes.xid IS 'The transaction. Readers stay below the oldest that still runs, so nothing that commits later is skipped.';


--
-- Name: COLUMN changes.changed_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.changes.changed_at IS 'When, by the clock of the database: what trimming goes by.';


--
-- Name: COLUMN changes.ids; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.changes.ids IS 'The rows that it changed, removed ones too.';


--
-- Name: COLUMN changes.days; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.changes.days IS 'The UTC days that they are on.';


--
-- Name: connection_log_counts; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.connection_log_counts (
    day date NOT NULL,
    organization_id uuid NOT NULL,
    method smallint NOT NULL,
    app_name text NOT NULL COLLATE pg_catalog."C",
    shard smallint NOT NULL,
    entries bigint NOT NULL,
    ended bigint NOT NULL
)
WITH (fillfactor='50');


ALTER TABLE public.connection_log_counts OWNER TO connlog_owner;

--
-- Name: TABLE connection_log_counts; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.connection_log_counts IS 'How many rows connection_logs has, and how many of them have an end, changed in the transactions that change it. Sums over the shards are exact in any snapshot; one shard alone may be negative.';


--
-- Name: COLUMN connection_log_counts.app_name; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_log_counts.app_name IS 'Normalized name of the client app; empty if unknown. Compared as bytes, as the programs do: all lock counts in one order.';


--
-- Name: COLUMN connection_log_counts.shard; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_log_counts.shard IS 'Which writer counted: writers of different shards do not wait for each other. Those of closed days are folded into shard 0.';


--
-- Name: COLUMN connection_log_counts.entries; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_log_counts.entries IS 'Rows.';


--
-- Name: COLUMN connection_log_counts.ended; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_log_counts.ended IS 'Rows that have a disconnect_time.';


--
-- Name: connection_logs; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.connection_logs (
    connect_time timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    target bigint NOT NULL,
    method smallint NOT NULL,
    start_source smallint,
    method_known boolean NOT NULL,
    disconnect_inferred boolean DEFAULT false NOT NULL,
    id uuid NOT NULL,
    connection_id uuid,
    client_session_id uuid,
    user_id uuid,
    boot integer,
    app_name text,
    ip inet,
    client_ip inet,
    user_agent text,
    slug_or_port text,
    disconnect_reason text,
    code integer,
    disconnect_time timestamp with time zone,
    ended_received_at timestamp with time zone,
    rx_bytes bigint,
    tx_bytes bigint,
    CONSTRAINT connection_logs_method_check CHECK (((method >= 1) AND (method <= 5))),
    CONSTRAINT connection_logs_start_source_check CHECK ((start_source = ANY (ARRAY[0, 1])))
)
PARTITION BY RANGE (connect_time);

ALTER TABLE ONLY public.connection_logs REPLICA IDENTITY FULL;


ALTER TABLE public.connection_logs OWNER TO connlog_owner;

--
-- Name: TABLE connection_logs; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.connection_logs IS 'The log: one row for each connection to an agent, from its first event to its end, and one for each web event, a point in time. A partition for each UTC day of connect_time.';


--
-- Name: COLUMN connection_logs.connect_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.connect_time IS 'When it began; if nobody said so (start_source is NULL), the time of its first event.';


--
-- Name: COLUMN connection_logs.received_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.received_at IS 'When ingest got the first event about it, by the clock of ingest.';


--
-- Name: COLUMN connection_logs.target; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.target IS 'Where it went: a row of targets.';


--
-- Name: COLUMN connection_logs.method; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.method IS '1 ssh, 2 reconnecting_pty, 3 workspace_app, 4 port_forwarding, 5 tunnel.';


--
-- Name: COLUMN connection_logs.start_source; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.start_source IS 'Who said when it began: 0 the agent, 1 a reporter; NULL if nobody did.';


--
-- Name: COLUMN connection_logs.method_known; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.method_known IS 'Whether an event said how it came; if not, method is 1 until one does.';


--
-- Name: COLUMN connection_logs.disconnect_inferred; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.disconnect_inferred IS 'Whether connlog concluded the end (agent lost, restarted or deleted) rather than being told.';


--
-- Name: COLUMN connection_logs.id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.id IS 'Names the row: UUIDv5 of connection_id, workspace_id and agent_name for a connection to an agent, of workspace_id and event_id for a web event.';


--
-- Name: COLUMN connection_logs.connection_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.connection_id IS 'The id that the agent gave the connection; of a web event the connection that it is part of, if any.';


--
-- Name: COLUMN connection_logs.client_session_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.client_session_id IS 'The client''s own id of its session, if it has one.';


--
-- Name: COLUMN connection_logs.user_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.user_id IS 'Who initiated it, if a reporter said so.';


--
-- Name: COLUMN connection_logs.boot; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.boot IS 'While it is open: the boot of the agent that streamed it (crates/model, BootNumber); 0 if an earlier boot than its stream''s; NULL if nobody said so.';


--
-- Name: COLUMN connection_logs.app_name; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.app_name IS 'Normalized name of the client app; NULL if unknown, and for web events.';


--
-- Name: COLUMN connection_logs.ip; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.ip IS 'Address of the client, if known.';


--
-- Name: COLUMN connection_logs.client_ip; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.client_ip IS 'Public address of the client of a session that came through a tunnel, if known.';


--
-- Name: COLUMN connection_logs.user_agent; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.user_agent IS 'The client''s user agent; of web events only.';


--
-- Name: COLUMN connection_logs.slug_or_port; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.slug_or_port IS 'Slug of the app, or number of the port; of web events only.';


--
-- Name: COLUMN connection_logs.disconnect_reason; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.disconnect_reason IS 'Why it ended, in words, if said.';


--
-- Name: COLUMN connection_logs.code; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.code IS 'Exit status of the session, or HTTP status of the web event; NULL if the end is inferred.';


--
-- Name: COLUMN connection_logs.disconnect_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.disconnect_time IS 'When the connection ended; NULL while it is open, and for web events.';


--
-- Name: COLUMN connection_logs.ended_received_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.ended_received_at IS 'When ingest got the end, by the clock of ingest; NULL if the end is inferred.';


--
-- Name: COLUMN connection_logs.rx_bytes; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.rx_bytes IS 'Bytes received from the client, if its agent counted them.';


--
-- Name: COLUMN connection_logs.tx_bytes; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs.tx_bytes IS 'Bytes sent to the client, if its agent counted them.';


--
-- Name: connection_logs_20200101; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.connection_logs_20200101 (
    connect_time timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    target bigint NOT NULL,
    method smallint NOT NULL,
    start_source smallint,
    method_known boolean NOT NULL,
    disconnect_inferred boolean DEFAULT false NOT NULL,
    id uuid NOT NULL,
    connection_id uuid,
    client_session_id uuid,
    user_id uuid,
    boot integer,
    app_name text,
    ip inet,
    client_ip inet,
    user_agent text,
    slug_or_port text,
    disconnect_reason text,
    code integer,
    disconnect_time timestamp with time zone,
    ended_received_at timestamp with time zone,
    rx_bytes bigint,
    tx_bytes bigint,
    CONSTRAINT connection_logs_method_check CHECK (((method >= 1) AND (method <= 5))),
    CONSTRAINT connection_logs_start_source_check CHECK ((start_source = ANY (ARRAY[0, 1])))
)
WITH (fillfactor='40', autovacuum_vacuum_insert_scale_factor='0.5');


ALTER TABLE public.connection_logs_20200101 OWNER TO connlog_owner;

--
-- Name: COLUMN connection_logs_20200101.connect_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.connect_time IS 'When it began; if nobody said so (start_source is NULL), the time of its first event.';


--
-- Name: COLUMN connection_logs_20200101.received_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.received_at IS 'When ingest got the first event about it, by the clock of ingest.';


--
-- Name: COLUMN connection_logs_20200101.target; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.target IS 'Where it went: a row of targets.';


--
-- Name: COLUMN connection_logs_20200101.method; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.method IS '1 ssh, 2 reconnecting_pty, 3 workspace_app, 4 port_forwarding, 5 tunnel.';


--
-- Name: COLUMN connection_logs_20200101.start_source; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.start_source IS 'Who said when it began: 0 the agent, 1 a reporter; NULL if nobody did.';


--
-- Name: COLUMN connection_logs_20200101.method_known; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.method_known IS 'Whether an event said how it came; if not, method is 1 until one does.';


--
-- Name: COLUMN connection_logs_20200101.disconnect_inferred; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.disconnect_inferred IS 'Whether connlog concluded the end (agent lost, restarted or deleted) rather than being told.';


--
-- Name: COLUMN connection_logs_20200101.id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.id IS 'Names the row: UUIDv5 of connection_id, workspace_id and agent_name for a connection to an agent, of workspace_id and event_id for a web event.';


--
-- Name: COLUMN connection_logs_20200101.connection_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.connection_id IS 'The id that the agent gave the connection; of a web event the connection that it is part of, if any.';


--
-- Name: COLUMN connection_logs_20200101.client_session_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.client_session_id IS 'The client''s own id of its session, if it has one.';


--
-- Name: COLUMN connection_logs_20200101.user_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.user_id IS 'Who initiated it, if a reporter said so.';


--
-- Name: COLUMN connection_logs_20200101.boot; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.boot IS 'While it is open: the boot of the agent that streamed it (crates/model, BootNumber); 0 if an earlier boot than its stream''s; NULL if nobody said so.';


--
-- Name: COLUMN connection_logs_20200101.app_name; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.app_name IS 'Normalized name of the client app; NULL if unknown, and for web events.';


--
-- Name: COLUMN connection_logs_20200101.ip; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.ip IS 'Address of the client, if known.';


--
-- Name: COLUMN connection_logs_20200101.client_ip; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.client_ip IS 'Public address of the client of a session that came through a tunnel, if known.';


--
-- Name: COLUMN connection_logs_20200101.user_agent; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.user_agent IS 'The client''s user agent; of web events only.';


--
-- Name: COLUMN connection_logs_20200101.slug_or_port; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.slug_or_port IS 'Slug of the app, or number of the port; of web events only.';


--
-- Name: COLUMN connection_logs_20200101.disconnect_reason; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.disconnect_reason IS 'Why it ended, in words, if said.';


--
-- Name: COLUMN connection_logs_20200101.code; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.code IS 'Exit status of the session, or HTTP status of the web event; NULL if the end is inferred.';


--
-- Name: COLUMN connection_logs_20200101.disconnect_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.disconnect_time IS 'When the connection ended; NULL while it is open, and for web events.';


--
-- Name: COLUMN connection_logs_20200101.ended_received_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.ended_received_at IS 'When ingest got the end, by the clock of ingest; NULL if the end is inferred.';


--
-- Name: COLUMN connection_logs_20200101.rx_bytes; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.rx_bytes IS 'Bytes received from the client, if its agent counted them.';


--
-- Name: COLUMN connection_logs_20200101.tx_bytes; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.connection_logs_20200101.tx_bytes IS 'Bytes sent to the client, if its agent counted them.';


--
-- Name: contradictions; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.contradictions (
    row_id uuid NOT NULL,
    digest bytea NOT NULL,
    organization_id uuid NOT NULL,
    connect_time timestamp with time zone NOT NULL,
    received_at timestamp with time zone NOT NULL,
    source smallint NOT NULL,
    fields text NOT NULL,
    claim jsonb NOT NULL,
    CONSTRAINT contradictions_source_check CHECK ((source = ANY (ARRAY[0, 1])))
);


ALTER TABLE public.contradictions OWNER TO connlog_owner;

--
-- Name: TABLE contradictions; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.contradictions IS 'What events said against what is recorded of a connection. Only ever added to; goes with the retention of its connection.';


--
-- Name: COLUMN contradictions.row_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.contradictions.row_id IS 'The connection: connection_logs.id.';


--
-- Name: COLUMN contradictions.digest; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.contradictions.digest IS 'The first 16 bytes of the SHA-256 of source and claim: the same content is stored once.';


--
-- Name: COLUMN contradictions.organization_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.contradictions.organization_id IS 'Organization of the connection: who may see it sees this.';


--
-- Name: COLUMN contradictions.connect_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.contradictions.connect_time IS 'The beginning of the connection as it was recorded then: what retention goes by.';


--
-- Name: COLUMN contradictions.received_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.contradictions.received_at IS 'When ingest got the event, by the clock of ingest.';


--
-- Name: COLUMN contradictions.source; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.contradictions.source IS 'Who said it: 0 the agent, 1 a reporter.';


--
-- Name: COLUMN contradictions.fields; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.contradictions.fields IS 'The fields that differ, separated by commas.';


--
-- Name: COLUMN contradictions.claim; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.contradictions.claim IS 'The event as it was said.';


--
-- Name: feed_consumers; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.feed_consumers (
    name text NOT NULL,
    anchor uuid NOT NULL,
    xid xid8 NOT NULL,
    token_id uuid,
    registered_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    gap_at timestamp with time zone
);


ALTER TABLE public.feed_consumers OWNER TO connlog_owner;

--
-- Name: TABLE feed_consumers; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.feed_consumers IS 'Readers of the change feed for whom changes are kept until they have read them, up to a bound on bytes.';


--
-- Name: COLUMN feed_consumers.anchor; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.feed_consumers.anchor IS 'The change up to which the consumer has read.';


--
-- Name: COLUMN feed_consumers.xid; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.feed_consumers.xid IS 'The transaction of that change.';


--
-- Name: COLUMN feed_consumers.token_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.feed_consumers.token_id IS 'The API token that reads as this consumer: the first one that did; no other one may. NULL until then.';


--
-- Name: COLUMN feed_consumers.seen_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.feed_consumers.seen_at IS 'When the consumer last said how far it has read.';


--
-- Name: COLUMN feed_consumers.gap_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.feed_consumers.gap_at IS 'When changes were trimmed that it had not read, because they took too many bytes; NULL if none were. It has to start anew.';


--
-- Name: floor; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.floor (
    one boolean DEFAULT true NOT NULL,
    cutoff timestamp with time zone NOT NULL,
    minimum interval DEFAULT '00:00:00'::interval NOT NULL,
    closed_before timestamp with time zone NOT NULL,
    CONSTRAINT floor_minimum_check CHECK ((minimum >= '00:00:00'::interval)),
    CONSTRAINT floor_one_check CHECK (one)
);


ALTER TABLE public.floor OWNER TO connlog_owner;

--
-- Name: TABLE floor; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.floor IS 'Below what nothing is written, and from where on days are still being written. One row.';


--
-- Name: COLUMN floor.cutoff; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.floor.cutoff IS 'What lies strictly before has been, or is being, purged: ingest refuses it. Only ever raised.';


--
-- Name: COLUMN floor.minimum; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.floor.minimum IS 'Nothing younger than this is ever removed. Only the owner changes it.';


--
-- Name: COLUMN floor.closed_before; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.floor.closed_before IS 'Days that begin before this are closed: what is open of them is in ongoing. Only ever raised.';


--
-- Name: ingest_attendance; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.ingest_attendance (
    one boolean DEFAULT true NOT NULL,
    heard_since timestamp with time zone NOT NULL,
    attended_at timestamp with time zone NOT NULL,
    CONSTRAINT ingest_attendance_one_check CHECK (one)
);


ALTER TABLE public.ingest_attendance OWNER TO connlog_owner;

--
-- Name: TABLE ingest_attendance; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.ingest_attendance IS 'Since when some ingest could have heard every agent without a break. Silence before that is an outage, not a death.';


--
-- Name: lost_events; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.lost_events (
    id uuid NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    organization_id uuid NOT NULL,
    workspace_id uuid NOT NULL,
    agent_id uuid,
    spool_id uuid,
    first_seq bigint,
    last_seq bigint,
    events bigint NOT NULL,
    since timestamp with time zone,
    until timestamp with time zone,
    cause text NOT NULL,
    CONSTRAINT lost_events_cause_check CHECK ((length(cause) <= 1024)),
    CONSTRAINT lost_events_check CHECK (((first_seq >= 1) AND (first_seq <= last_seq))),
    CONSTRAINT lost_events_events_check CHECK (((events >= 1) AND (events <= '9007199254740992'::bigint))),
    CONSTRAINT lost_events_last_seq_check CHECK ((last_seq <= '9007199254740992'::bigint)),
    CONSTRAINT lost_events_since_check CHECK (((since >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (since <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone))),
    CONSTRAINT lost_events_until_check CHECK (((until >= '1970-01-01 00:00:00+00'::timestamp with time zone) AND (until <= '9999-12-31 23:59:59.999999+00'::timestamp with time zone)))
);


ALTER TABLE public.lost_events OWNER TO connlog_owner;

--
-- Name: TABLE lost_events; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.lost_events IS 'Events that the log never got: told by the agent (a spool that overflowed) or by a reporter on its behalf, or found as a gap in the sequence numbers.';


--
-- Name: COLUMN lost_events.id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.lost_events.id IS 'UUIDv5 of agent, spool and last_seq, or of what a reporter told, so that a replay is the same record.';


--
-- Name: COLUMN lost_events.agent_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.lost_events.agent_id IS 'The agent, if the directory knows it.';


--
-- Name: COLUMN lost_events.spool_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.lost_events.spool_id IS 'The spool whose sequence numbers these are; NULL, as they are, if a reporter told.';


--
-- Name: number_key; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.number_key (
    one boolean DEFAULT true NOT NULL,
    key bytea NOT NULL,
    CONSTRAINT number_key_key_check CHECK ((length(key) = 32)),
    CONSTRAINT number_key_one_check CHECK (one)
);


ALTER TABLE public.number_key OWNER TO connlog_owner;

--
-- Name: TABLE number_key; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.number_key IS 'The secret under which agents and targets are numbered: without it nobody finds two names with one number.';


--
-- Name: COLUMN number_key.key; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.number_key.key IS 'Key of an HMAC-SHA256. Changing it gives every agent and target a second number.';


--
-- Name: ongoing; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.ongoing (
    id uuid NOT NULL,
    agent bigint NOT NULL,
    target bigint NOT NULL,
    connect_time timestamp with time zone NOT NULL,
    boot integer
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.05');


ALTER TABLE public.ongoing OWNER TO connlog_owner;

--
-- Name: TABLE ongoing; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.ongoing IS 'The connections without an end whose day is closed (connect_time < floor.closed_before). Those of the days still being written are found in place.';


--
-- Name: COLUMN ongoing.id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.ongoing.id IS 'connection_logs.id.';


--
-- Name: COLUMN ongoing.agent; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.ongoing.agent IS 'The agent: agents.agent.';


--
-- Name: COLUMN ongoing.target; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.ongoing.target IS 'connection_logs.target.';


--
-- Name: COLUMN ongoing.connect_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.ongoing.connect_time IS 'connection_logs.connect_time: its day.';


--
-- Name: COLUMN ongoing.boot; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.ongoing.boot IS 'connection_logs.boot.';


--
-- Name: organizations; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.organizations (
    id uuid NOT NULL,
    name text NOT NULL,
    name_key text NOT NULL,
    display_name text NOT NULL,
    icon text NOT NULL,
    deleted boolean NOT NULL
);


ALTER TABLE public.organizations OWNER TO connlog_owner;

--
-- Name: TABLE organizations; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.organizations IS 'Organizations as a control plane last told. Never deleted, only marked: history refers to them.';


--
-- Name: COLUMN organizations.name_key; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.organizations.name_key IS 'The name in lower case, by the rules of the programs: those of the database depend on its locale.';


--
-- Name: purge_lease; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.purge_lease (
    one boolean DEFAULT true NOT NULL,
    holder uuid,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT purge_lease_one_check CHECK (one)
);


ALTER TABLE public.purge_lease OWNER TO connlog_owner;

--
-- Name: TABLE purge_lease; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.purge_lease IS 'Who purges and compacts: one at a time. A lease rather than a lock, since a lock would be held by a transaction, which holds up the change feed.';


--
-- Name: COLUMN purge_lease.holder; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.purge_lease.holder IS 'The run that holds it; NULL if it was given back.';


--
-- Name: COLUMN purge_lease.expires_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.purge_lease.expires_at IS 'Until when it is held, unless it is renewed.';


--
-- Name: purge_runs; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.purge_runs (
    id uuid NOT NULL,
    started_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    cutoff timestamp with time zone,
    retention_seconds bigint,
    days_dropped integer NOT NULL,
    rows_dropped bigint NOT NULL,
    rows_trimmed bigint NOT NULL,
    open_removed bigint NOT NULL,
    rejected_removed bigint NOT NULL,
    lost_removed bigint NOT NULL,
    audit_removed bigint NOT NULL,
    days_compacted integer NOT NULL,
    rows_left bigint NOT NULL,
    outcome text NOT NULL,
    error text,
    CONSTRAINT purge_runs_outcome_check CHECK ((outcome = ANY (ARRAY['complete'::text, 'incomplete'::text, 'interrupted'::text])))
);


ALTER TABLE public.purge_runs OWNER TO connlog_owner;

--
-- Name: TABLE purge_runs; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.purge_runs IS 'Proof that retention ran: one row for each run of connlog-purge that had a cutoff or compacted anything.';


--
-- Name: COLUMN purge_runs.cutoff; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.purge_runs.cutoff IS 'What of the log lay strictly before was due; NULL if the log is kept for ever.';


--
-- Name: COLUMN purge_runs.retention_seconds; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.purge_runs.retention_seconds IS 'How long the log was kept; NULL if for ever.';


--
-- Name: COLUMN purge_runs.rejected_removed; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.purge_runs.rejected_removed IS 'Dead letters removed.';


--
-- Name: COLUMN purge_runs.lost_removed; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.purge_runs.lost_removed IS 'Records of losses removed.';


--
-- Name: COLUMN purge_runs.audit_removed; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.purge_runs.audit_removed IS 'Records of uses of the API removed.';


--
-- Name: COLUMN purge_runs.days_compacted; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.purge_runs.days_compacted IS 'Closed days that were rewritten without room for changes.';


--
-- Name: COLUMN purge_runs.rows_left; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.purge_runs.rows_left IS 'What was due and is still there when the run ended.';


--
-- Name: refinery_schema_history; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.refinery_schema_history (
    version integer NOT NULL,
    name character varying(255),
    applied_on character varying(255),
    checksum character varying(255)
);


ALTER TABLE public.refinery_schema_history OWNER TO connlog_owner;

--
-- Name: rejected_events; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.rejected_events (
    id uuid NOT NULL,
    received_at timestamp with time zone NOT NULL,
    organization_id uuid,
    workspace_id uuid,
    agent_id uuid,
    token_id uuid,
    spool_id uuid,
    seq bigint,
    message_type text NOT NULL,
    message bytea NOT NULL,
    field text NOT NULL,
    reason text NOT NULL,
    events bigint NOT NULL,
    is_merged boolean NOT NULL,
    CONSTRAINT rejected_events_events_check CHECK (((events >= 1) AND (events <= '9007199254740992'::bigint)))
);


ALTER TABLE public.rejected_events OWNER TO connlog_owner;

--
-- Name: TABLE rejected_events; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.rejected_events IS 'Dead letters: events that were well-formed but could not be accepted, as they were received.';


--
-- Name: COLUMN rejected_events.id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.rejected_events.id IS 'UUIDv5 of the sender and the message, so that a replay is the same letter; of a merged one of sender, workspace, day and cause.';


--
-- Name: COLUMN rejected_events.token_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.rejected_events.token_id IS 'The reporter''s token; NULL if an agent sent it.';


--
-- Name: COLUMN rejected_events.seq; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.rejected_events.seq IS 'Its sequence number; of a merged one that of the last.';


--
-- Name: COLUMN rejected_events.message; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.rejected_events.message IS 'The protobuf message of type message_type.';


--
-- Name: COLUMN rejected_events.events; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.rejected_events.events IS 'How many events it stands for.';


--
-- Name: COLUMN rejected_events.is_merged; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.rejected_events.is_merged IS 'Whether its sender left more of them than are kept: this is the first one, the others are only counted.';


--
-- Name: revocations; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.revocations (
    one boolean DEFAULT true NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT revocations_one_check CHECK (one)
);


ALTER TABLE public.revocations OWNER TO connlog_owner;

--
-- Name: TABLE revocations; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.revocations IS 'What services ask for every few seconds: once it is another number, they look up the tokens of all calls that go on.';


--
-- Name: COLUMN revocations.version; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.revocations.version IS 'How often tokens were revoked.';


--
-- Name: targets; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.targets (
    target bigint NOT NULL,
    agent bigint NOT NULL,
    organization_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    workspace_id uuid NOT NULL,
    workspace_name text NOT NULL,
    workspace_name_key text NOT NULL,
    agent_name text NOT NULL
);


ALTER TABLE public.targets OWNER TO connlog_owner;

--
-- Name: TABLE targets; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.targets IS 'Where connections went, as it was at the time: organization, owner, workspace, names. Rows of the log refer to it. Never changed, never removed.';


--
-- Name: COLUMN targets.target; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.targets.target IS 'The first eight bytes of the HMAC of the other columns (crates/store, numbers.rs).';


--
-- Name: COLUMN targets.agent; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.targets.agent IS 'The agent: agents.agent.';


--
-- Name: COLUMN targets.workspace_name_key; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.targets.workspace_name_key IS 'The name in lower case, see organizations.name_key.';


--
-- Name: users; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.users (
    id uuid NOT NULL,
    username text NOT NULL,
    username_key text NOT NULL,
    email text NOT NULL,
    email_key text NOT NULL,
    name text NOT NULL,
    avatar_url text NOT NULL,
    status text NOT NULL,
    login_type text NOT NULL,
    deleted boolean NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    last_seen_at timestamp with time zone NOT NULL
);


ALTER TABLE public.users OWNER TO connlog_owner;

--
-- Name: TABLE users; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.users IS 'Users as a control plane last told. Deleted ones stay, but no longer match by name.';


--
-- Name: COLUMN users.username_key; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.users.username_key IS 'The username in lower case, see organizations.name_key.';


--
-- Name: COLUMN users.email_key; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.users.email_key IS 'The email in lower case, see organizations.name_key.';


--
-- Name: workspace_agents; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.workspace_agents (
    id uuid NOT NULL,
    workspace_id uuid NOT NULL,
    name text NOT NULL,
    deleted boolean NOT NULL,
    deleted_at timestamp with time zone
);


ALTER TABLE public.workspace_agents OWNER TO connlog_owner;

--
-- Name: TABLE workspace_agents; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.workspace_agents IS 'Agents of workspaces as a control plane last told.';


--
-- Name: workspaces; Type: TABLE; Schema: public; Owner: connlog_owner
--

CREATE TABLE public.workspaces (
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    owner_id uuid NOT NULL,
    name text NOT NULL,
    name_key text NOT NULL,
    deleted boolean NOT NULL,
    deleted_at timestamp with time zone
);


ALTER TABLE public.workspaces OWNER TO connlog_owner;

--
-- Name: TABLE workspaces; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON TABLE public.workspaces IS 'Workspaces as a control plane last told.';


--
-- Name: COLUMN workspaces.name_key; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.workspaces.name_key IS 'The name in lower case, see organizations.name_key.';


--
-- Name: COLUMN workspaces.deleted_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON COLUMN public.workspaces.deleted_at IS 'When it was first told to be deleted: the inferred end of what it had open.';


--
-- Name: connection_logs_20200101; Type: TABLE ATTACH; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.connection_logs ATTACH PARTITION public.connection_logs_20200101 FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-01-02 00:00:00+00');


--
-- Name: agent_spools agent_spools_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.agent_spools
    ADD CONSTRAINT agent_spools_pkey PRIMARY KEY (agent, spool_id);


--
-- Name: agent_tokens agent_tokens_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.agent_tokens
    ADD CONSTRAINT agent_tokens_pkey PRIMARY KEY (sha256);


--
-- Name: agents agents_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.agents
    ADD CONSTRAINT agents_pkey PRIMARY KEY (agent);


--
-- Name: api_audit api_audit_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.api_audit
    ADD CONSTRAINT api_audit_pkey PRIMARY KEY (id);


--
-- Name: api_tokens api_tokens_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.api_tokens
    ADD CONSTRAINT api_tokens_pkey PRIMARY KEY (id);


--
-- Name: browser_secrets browser_secrets_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.browser_secrets
    ADD CONSTRAINT browser_secrets_pkey PRIMARY KEY (sha256);


--
-- Name: browser_sessions browser_sessions_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.browser_sessions
    ADD CONSTRAINT browser_sessions_pkey PRIMARY KEY (id);


--
-- Name: changes changes_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.changes
    ADD CONSTRAINT changes_pkey PRIMARY KEY (anchor);


--
-- Name: compactions compactions_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.compactions
    ADD CONSTRAINT compactions_pkey PRIMARY KEY (one);


--
-- Name: connection_log_counts connection_log_counts_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.connection_log_counts
    ADD CONSTRAINT connection_log_counts_pkey PRIMARY KEY (day, organization_id, method, app_name, shard);


--
-- Name: contradictions contradictions_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.contradictions
    ADD CONSTRAINT contradictions_pkey PRIMARY KEY (row_id, digest);


--
-- Name: feed_consumers feed_consumers_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.feed_consumers
    ADD CONSTRAINT feed_consumers_pkey PRIMARY KEY (name);


--
-- Name: floor floor_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.floor
    ADD CONSTRAINT floor_pkey PRIMARY KEY (one);


--
-- Name: ingest_attendance ingest_attendance_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.ingest_attendance
    ADD CONSTRAINT ingest_attendance_pkey PRIMARY KEY (one);


--
-- Name: lost_events lost_events_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.lost_events
    ADD CONSTRAINT lost_events_pkey PRIMARY KEY (id);


--
-- Name: number_key number_key_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.number_key
    ADD CONSTRAINT number_key_pkey PRIMARY KEY (one);


--
-- Name: ongoing ongoing_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.ongoing
    ADD CONSTRAINT ongoing_pkey PRIMARY KEY (id);


--
-- Name: organizations organizations_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.organizations
    ADD CONSTRAINT organizations_pkey PRIMARY KEY (id);


--
-- Name: purge_lease purge_lease_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.purge_lease
    ADD CONSTRAINT purge_lease_pkey PRIMARY KEY (one);


--
-- Name: purge_runs purge_runs_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.purge_runs
    ADD CONSTRAINT purge_runs_pkey PRIMARY KEY (id);


--
-- Name: refinery_schema_history refinery_schema_history_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.refinery_schema_history
    ADD CONSTRAINT refinery_schema_history_pkey PRIMARY KEY (version);


--
-- Name: rejected_events rejected_events_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.rejected_events
    ADD CONSTRAINT rejected_events_pkey PRIMARY KEY (id);


--
-- Name: revocations revocations_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.revocations
    ADD CONSTRAINT revocations_pkey PRIMARY KEY (one);


--
-- Name: targets targets_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.targets
    ADD CONSTRAINT targets_pkey PRIMARY KEY (target);


--
-- Name: users users_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);


--
-- Name: workspace_agents workspace_agents_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.workspace_agents
    ADD CONSTRAINT workspace_agents_pkey PRIMARY KEY (id);


--
-- Name: workspaces workspaces_pkey; Type: CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.workspaces
    ADD CONSTRAINT workspaces_pkey PRIMARY KEY (id);


--
-- Name: agent_tokens_agent; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX agent_tokens_agent ON public.agent_tokens USING btree (agent_id);


--
-- Name: INDEX agent_tokens_agent; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.agent_tokens_agent IS 'Expiring the earlier tokens of an agent, and revoking all of them.';


--
-- Name: agents_open; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX agents_open ON public.agents USING btree (agent) WHERE (open_since IS NOT NULL);


--
-- Name: INDEX agents_open; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.agents_open IS 'The sweep of silent and deleted agents.';


--
-- Name: agents_workspace; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX agents_workspace ON public.agents USING btree (workspace_id);


--
-- Name: INDEX agents_workspace; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.agents_workspace IS 'Closing what a deleted workspace had open.';


--
-- Name: api_audit_at; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX api_audit_at ON public.api_audit USING btree (at);


--
-- Name: INDEX api_audit_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.api_audit_at IS 'The last uses, newest first, and retention.';


--
-- Name: api_tokens_sha256; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX api_tokens_sha256 ON public.api_tokens USING btree (sha256);


--
-- Name: INDEX api_tokens_sha256; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.api_tokens_sha256 IS 'Authentication.';


--
-- Name: browser_secrets_session; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX browser_secrets_session ON public.browser_secrets USING btree (session_id, made_at);


--
-- Name: INDEX browser_secrets_session; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.browser_secrets_session IS 'Newer secrets of a session, and ending it.';


--
-- Name: browser_sessions_token; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX browser_sessions_token ON public.browser_sessions USING btree (token_id);


--
-- Name: INDEX browser_sessions_token; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.browser_sessions_token IS 'The list of a user, and how many a token has.';


--
-- Name: changes_xid; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX changes_xid ON public.changes USING btree (xid);


--
-- Name: INDEX changes_xid; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.changes_xid IS 'Reading the feed in order.';


--
-- Name: connection_log_counts_organization; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_log_counts_organization ON public.connection_log_counts USING btree (organization_id);


--
-- Name: INDEX connection_log_counts_organization; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_log_counts_organization IS 'Counts of an organization, and of tokens limited to organizations.';


--
-- Name: connection_logs_connect_time; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_connect_time ON ONLY public.connection_logs USING btree (connect_time);


--
-- Name: INDEX connection_logs_connect_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_connect_time IS 'Pages, newest first, and trimming the boundary day.';


--
-- Name: connection_logs_20200101_connect_time_idx; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_20200101_connect_time_idx ON public.connection_logs_20200101 USING btree (connect_time);


--
-- Name: INDEX connection_logs_20200101_connect_time_idx; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_20200101_connect_time_idx IS 'Pages, newest first, and trimming the boundary day.';


--
-- Name: connection_logs_connection; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_connection ON ONLY public.connection_logs USING btree (connection_id) WHERE (connection_id IS NOT NULL);


--
-- Name: INDEX connection_logs_connection; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_connection IS 'The filter connection_id.';


--
-- Name: connection_logs_20200101_connection_id_idx; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_20200101_connection_id_idx ON public.connection_logs_20200101 USING btree (connection_id) WHERE (connection_id IS NOT NULL);


--
-- Name: INDEX connection_logs_20200101_connection_id_idx; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_20200101_connection_id_idx IS 'The filter connection_id.';


--
-- Name: connection_logs_20200101_id; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE UNIQUE INDEX connection_logs_20200101_id ON public.connection_logs_20200101 USING btree (id);

ALTER TABLE ONLY public.connection_logs_20200101 REPLICA IDENTITY USING INDEX connection_logs_20200101_id;


--
-- Name: INDEX connection_logs_20200101_id; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_20200101_id IS 'The look-up of the write path, one entry of the API, and that an id has one row.';


--
-- Name: connection_logs_kind; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_kind ON ONLY public.connection_logs USING btree (method, app_name);


--
-- Name: INDEX connection_logs_kind; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_kind IS 'The filters method, type and app, where they match little.';


--
-- Name: connection_logs_20200101_method_app_name_idx; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_20200101_method_app_name_idx ON public.connection_logs_20200101 USING btree (method, app_name);


--
-- Name: INDEX connection_logs_20200101_method_app_name_idx; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_20200101_method_app_name_idx IS 'The filters method, type and app, where they match little.';


--
-- Name: connection_logs_target; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_target ON ONLY public.connection_logs USING btree (target, connect_time, method, app_name);


--
-- Name: INDEX connection_logs_target; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_target IS 'The filters workspace_owner, workspace_owner_email, workspace and workspace_id, also with method, type or app, rare matches of organization, and what an agent has open.';


--
-- Name: connection_logs_20200101_target_connect_time_method_app_nam_idx; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_20200101_target_connect_time_method_app_nam_idx ON public.connection_logs_20200101 USING btree (target, connect_time, method, app_name);


--
-- Name: INDEX connection_logs_20200101_target_connect_time_method_app_nam_idx; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_20200101_target_connect_time_method_app_nam_idx IS 'The filters workspace_owner, workspace_owner_email, workspace and workspace_id, also with method, type or app, rare matches of organization, and what an agent has open.';


--
-- Name: connection_logs_user; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_user ON ONLY public.connection_logs USING btree (user_id) WHERE (user_id IS NOT NULL);


--
-- Name: INDEX connection_logs_user; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_user IS 'The filters username and user_email.';


--
-- Name: connection_logs_20200101_user_id_idx; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX connection_logs_20200101_user_id_idx ON public.connection_logs_20200101 USING btree (user_id) WHERE (user_id IS NOT NULL);


--
-- Name: INDEX connection_logs_20200101_user_id_idx; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.connection_logs_20200101_user_id_idx IS 'The filters username and user_email.';


--
-- Name: contradictions_connect_time; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX contradictions_connect_time ON public.contradictions USING btree (connect_time);


--
-- Name: INDEX contradictions_connect_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.contradictions_connect_time IS 'Retention.';


--
-- Name: lost_events_recorded_at; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX lost_events_recorded_at ON public.lost_events USING btree (recorded_at);


--
-- Name: INDEX lost_events_recorded_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.lost_events_recorded_at IS 'The gaps endpoint, and retention.';


--
-- Name: ongoing_agent; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX ongoing_agent ON public.ongoing USING btree (agent);


--
-- Name: INDEX ongoing_agent; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.ongoing_agent IS 'Closing what a lost, restarted or deleted agent had open.';


--
-- Name: ongoing_connect_time; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX ongoing_connect_time ON public.ongoing USING btree (connect_time);


--
-- Name: INDEX ongoing_connect_time; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.ongoing_connect_time IS 'Whether a day may be dropped, the retention of open connections, and the filter status:ongoing.';


--
-- Name: organizations_name; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX organizations_name ON public.organizations USING btree (name_key);


--
-- Name: INDEX organizations_name; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.organizations_name IS 'The filter organization:NAME.';


--
-- Name: purge_runs_started_at; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX purge_runs_started_at ON public.purge_runs USING btree (started_at);


--
-- Name: INDEX purge_runs_started_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.purge_runs_started_at IS 'The last runs, newest first.';


--
-- Name: rejected_events_received_at; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX rejected_events_received_at ON public.rejected_events USING btree (received_at);


--
-- Name: INDEX rejected_events_received_at; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.rejected_events_received_at IS 'The gaps endpoint, and retention.';


--
-- Name: targets_agent; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX targets_agent ON public.targets USING btree (agent);


--
-- Name: INDEX targets_agent; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.targets_agent IS 'What an agent has open.';


--
-- Name: targets_organization; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX targets_organization ON public.targets USING btree (organization_id);


--
-- Name: INDEX targets_organization; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.targets_organization IS 'The filter organization, and tokens limited to organizations.';


--
-- Name: targets_owner; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX targets_owner ON public.targets USING btree (owner_id);


--
-- Name: INDEX targets_owner; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.targets_owner IS 'The filters workspace_owner and workspace_owner_email.';


--
-- Name: targets_workspace; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX targets_workspace ON public.targets USING btree (workspace_id);


--
-- Name: INDEX targets_workspace; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.targets_workspace IS 'The filter workspace_id.';


--
-- Name: targets_workspace_name; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX targets_workspace_name ON public.targets USING btree (workspace_name_key);


--
-- Name: INDEX targets_workspace_name; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.targets_workspace_name IS 'The filter workspace.';


--
-- Name: users_email; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX users_email ON public.users USING btree (email_key);


--
-- Name: INDEX users_email; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.users_email IS 'The filters workspace_owner_email:EMAIL and user_email:EMAIL.';


--
-- Name: users_username; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX users_username ON public.users USING btree (username_key);


--
-- Name: INDEX users_username; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.users_username IS 'The filters workspace_owner:NAME and username:NAME.';


--
-- Name: workspace_agents_workspace; Type: INDEX; Schema: public; Owner: connlog_owner
--

CREATE INDEX workspace_agents_workspace ON public.workspace_agents USING btree (workspace_id);


--
-- Name: INDEX workspace_agents_workspace; Type: COMMENT; Schema: public; Owner: connlog_owner
--

COMMENT ON INDEX public.workspace_agents_workspace IS 'An event that a reporter files under a workspace and the name of an agent.';


--
-- Name: connection_logs_20200101_connect_time_idx; Type: INDEX ATTACH; Schema: public; Owner: connlog_owner
--

ALTER INDEX public.connection_logs_connect_time ATTACH PARTITION public.connection_logs_20200101_connect_time_idx;


--
-- Name: connection_logs_20200101_connection_id_idx; Type: INDEX ATTACH; Schema: public; Owner: connlog_owner
--

ALTER INDEX public.connection_logs_connection ATTACH PARTITION public.connection_logs_20200101_connection_id_idx;


--
-- Name: connection_logs_20200101_method_app_name_idx; Type: INDEX ATTACH; Schema: public; Owner: connlog_owner
--

ALTER INDEX public.connection_logs_kind ATTACH PARTITION public.connection_logs_20200101_method_app_name_idx;


--
-- Name: connection_logs_20200101_target_connect_time_method_app_nam_idx; Type: INDEX ATTACH; Schema: public; Owner: connlog_owner
--

ALTER INDEX public.connection_logs_target ATTACH PARTITION public.connection_logs_20200101_target_connect_time_method_app_nam_idx;


--
-- Name: connection_logs_20200101_user_id_idx; Type: INDEX ATTACH; Schema: public; Owner: connlog_owner
--

ALTER INDEX public.connection_logs_user ATTACH PARTITION public.connection_logs_20200101_user_id_idx;


--
-- Name: browser_secrets browser_secrets_session_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.browser_secrets
    ADD CONSTRAINT browser_secrets_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.browser_sessions(id) ON DELETE CASCADE;


--
-- Name: browser_sessions browser_sessions_token_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: connlog_owner
--

ALTER TABLE ONLY public.browser_sessions
    ADD CONSTRAINT browser_sessions_token_id_fkey FOREIGN KEY (token_id) REFERENCES public.api_tokens(id);


--
-- Name: SCHEMA public; Type: ACL; Schema: -; Owner: pg_database_owner
--

GRANT ALL ON SCHEMA public TO connlog_owner;
GRANT USAGE ON SCHEMA public TO connlog_ingest;
GRANT USAGE ON SCHEMA public TO connlog_query;
GRANT USAGE ON SCHEMA public TO connlog_purge;


--
-- Name: FUNCTION apply_to_compacted(wanted_by uuid, day date); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.apply_to_compacted(wanted_by uuid, day date) FROM PUBLIC;
GRANT ALL ON FUNCTION public.apply_to_compacted(wanted_by uuid, day date) TO connlog_purge;


--
-- Name: FUNCTION attach_day(day date); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.attach_day(day date) FROM PUBLIC;
GRANT ALL ON FUNCTION public.attach_day(day date) TO connlog_ingest;
GRANT ALL ON FUNCTION public.attach_day(day date) TO connlog_purge;


--
-- Name: FUNCTION begin_compaction(wanted_by uuid, day date); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.begin_compaction(wanted_by uuid, day date) FROM PUBLIC;
GRANT ALL ON FUNCTION public.begin_compaction(wanted_by uuid, day date) TO connlog_purge;


--
-- Name: FUNCTION close_days(upto timestamp with time zone, collected_at pg_snapshot, collected uuid[]); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.close_days(upto timestamp with time zone, collected_at pg_snapshot, collected uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.close_days(upto timestamp with time zone, collected_at pg_snapshot, collected uuid[]) TO connlog_ingest;
GRANT ALL ON FUNCTION public.close_days(upto timestamp with time zone, collected_at pg_snapshot, collected uuid[]) TO connlog_purge;


--
-- Name: FUNCTION compacted_table(day date); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.compacted_table(day date) FROM PUBLIC;


--
-- Name: FUNCTION copy_compacted(wanted_by uuid, day date, most bigint); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.copy_compacted(wanted_by uuid, day date, most bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.copy_compacted(wanted_by uuid, day date, most bigint) TO connlog_purge;


--
-- Name: FUNCTION day_table(day date); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.day_table(day date) FROM PUBLIC;
GRANT ALL ON FUNCTION public.day_table(day date) TO connlog_ingest;
GRANT ALL ON FUNCTION public.day_table(day date) TO connlog_query;
GRANT ALL ON FUNCTION public.day_table(day date) TO connlog_purge;


--
-- Name: FUNCTION days(); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.days() FROM PUBLIC;
GRANT ALL ON FUNCTION public.days() TO connlog_ingest;
GRANT ALL ON FUNCTION public.days() TO connlog_query;
GRANT ALL ON FUNCTION public.days() TO connlog_purge;


--
-- Name: FUNCTION drop_day(day date, patience text); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.drop_day(day date, patience text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.drop_day(day date, patience text) TO connlog_purge;


--
-- Name: FUNCTION due_open(cutoff timestamp with time zone, live_since timestamp with time zone); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.due_open(cutoff timestamp with time zone, live_since timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION public.due_open(cutoff timestamp with time zone, live_since timestamp with time zone) TO connlog_purge;


--
-- Name: FUNCTION end_uses(ids uuid[], row_counts bigint[], completeness boolean[]); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.end_uses(ids uuid[], row_counts bigint[], completeness boolean[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.end_uses(ids uuid[], row_counts bigint[], completeness boolean[]) TO connlog_query;


--
-- Name: FUNCTION fold_counts(day date); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.fold_counts(day date) FROM PUBLIC;


--
-- Name: FUNCTION give_purge_lease(held_by uuid); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.give_purge_lease(held_by uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.give_purge_lease(held_by uuid) TO connlog_purge;


--
-- Name: FUNCTION grant_day(partition_name text); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.grant_day(partition_name text) FROM PUBLIC;


--
-- Name: FUNCTION hold_compaction(wanted_by uuid, wanted date); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.hold_compaction(wanted_by uuid, wanted date) FROM PUBLIC;


--
-- Name: FUNCTION hold_day(partition_name text, patience text); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.hold_day(partition_name text, patience text) FROM PUBLIC;


--
-- Name: FUNCTION index_compacted(wanted_by uuid, day date); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.index_compacted(wanted_by uuid, day date) FROM PUBLIC;
GRANT ALL ON FUNCTION public.index_compacted(wanted_by uuid, day date) TO connlog_purge;


--
-- Name: FUNCTION note_read(consumer text, read_anchor uuid, reader uuid); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.note_read(consumer text, read_anchor uuid, reader uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.note_read(consumer text, read_anchor uuid, reader uuid) TO connlog_query;


--
-- Name: FUNCTION purge_bound(); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.purge_bound() FROM PUBLIC;
GRANT ALL ON FUNCTION public.purge_bound() TO connlog_purge;


--
-- Name: FUNCTION raise_floor(wanted timestamp with time zone, retention_seconds double precision); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.raise_floor(wanted timestamp with time zone, retention_seconds double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION public.raise_floor(wanted timestamp with time zone, retention_seconds double precision) TO connlog_purge;


--
-- Name: FUNCTION remove_open(cutoff timestamp with time zone, live_since timestamp with time zone, most bigint); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.remove_open(cutoff timestamp with time zone, live_since timestamp with time zone, most bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.remove_open(cutoff timestamp with time zone, live_since timestamp with time zone, most bigint) TO connlog_purge;


--
-- Name: FUNCTION remove_records(kind text, cutoff timestamp with time zone, most bigint); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.remove_records(kind text, cutoff timestamp with time zone, most bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.remove_records(kind text, cutoff timestamp with time zone, most bigint) TO connlog_purge;


--
-- Name: FUNCTION restart_feed(); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.restart_feed() FROM PUBLIC;
GRANT ALL ON FUNCTION public.restart_feed() TO connlog_ingest;


--
-- Name: FUNCTION start_of(day date); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.start_of(day date) FROM PUBLIC;
GRANT ALL ON FUNCTION public.start_of(day date) TO connlog_ingest;
GRANT ALL ON FUNCTION public.start_of(day date) TO connlog_query;
GRANT ALL ON FUNCTION public.start_of(day date) TO connlog_purge;


--
-- Name: FUNCTION swap_compacted(wanted_by uuid, day date, patience text); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.swap_compacted(wanted_by uuid, day date, patience text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.swap_compacted(wanted_by uuid, day date, patience text) TO connlog_purge;


--
-- Name: FUNCTION take_purge_lease(wanted_by uuid); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.take_purge_lease(wanted_by uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.take_purge_lease(wanted_by uuid) TO connlog_purge;


--
-- Name: FUNCTION take_unknown_starts(day date, wanted uuid[]); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.take_unknown_starts(day date, wanted uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.take_unknown_starts(day date, wanted uuid[]) TO connlog_ingest;


--
-- Name: FUNCTION trim_changes(kept_since timestamp with time zone, max_bytes bigint); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.trim_changes(kept_since timestamp with time zone, max_bytes bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.trim_changes(kept_since timestamp with time zone, max_bytes bigint) TO connlog_ingest;


--
-- Name: FUNCTION trim_day(day date, cutoff timestamp with time zone, most bigint); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.trim_day(day date, cutoff timestamp with time zone, most bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.trim_day(day date, cutoff timestamp with time zone, most bigint) TO connlog_purge;


--
-- Name: FUNCTION unattached_days(); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.unattached_days() FROM PUBLIC;
GRANT ALL ON FUNCTION public.unattached_days() TO connlog_ingest;
GRANT ALL ON FUNCTION public.unattached_days() TO connlog_purge;


--
-- Name: FUNCTION uncompacted_days(); Type: ACL; Schema: public; Owner: connlog_owner
--

REVOKE ALL ON FUNCTION public.uncompacted_days() FROM PUBLIC;
GRANT ALL ON FUNCTION public.uncompacted_days() TO connlog_query;
GRANT ALL ON FUNCTION public.uncompacted_days() TO connlog_purge;


--
-- Name: TABLE agent_spools; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.agent_spools TO connlog_ingest;
GRANT SELECT ON TABLE public.agent_spools TO connlog_query;
GRANT SELECT ON TABLE public.agent_spools TO connlog_purge;


--
-- Name: TABLE agent_tokens; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.agent_tokens TO connlog_ingest;


--
-- Name: TABLE agents; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT ON TABLE public.agents TO connlog_ingest;
GRANT SELECT ON TABLE public.agents TO connlog_query;


--
-- Name: COLUMN agents.open_since; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(open_since) ON TABLE public.agents TO connlog_ingest;


--
-- Name: TABLE api_audit; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT ON TABLE public.api_audit TO connlog_query;


--
-- Name: COLUMN api_audit.at; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT(at) ON TABLE public.api_audit TO connlog_purge;


--
-- Name: TABLE api_tokens; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT ON TABLE public.api_tokens TO connlog_ingest;
GRANT SELECT ON TABLE public.api_tokens TO connlog_query;


--
-- Name: TABLE browser_secrets; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.browser_secrets TO connlog_query;


--
-- Name: TABLE browser_sessions; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.browser_sessions TO connlog_query;


--
-- Name: TABLE changes; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT ON TABLE public.changes TO connlog_ingest;
GRANT SELECT ON TABLE public.changes TO connlog_query;


--
-- Name: TABLE connection_log_counts; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.connection_log_counts TO connlog_ingest;
GRANT SELECT ON TABLE public.connection_log_counts TO connlog_query;
GRANT SELECT ON TABLE public.connection_log_counts TO connlog_purge;


--
-- Name: TABLE connection_logs; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT ON TABLE public.connection_logs TO connlog_ingest;
GRANT SELECT ON TABLE public.connection_logs TO connlog_query;
GRANT SELECT ON TABLE public.connection_logs TO connlog_purge;


--
-- Name: TABLE connection_logs_20200101; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT ON TABLE public.connection_logs_20200101 TO connlog_ingest;
GRANT SELECT ON TABLE public.connection_logs_20200101 TO connlog_query;
GRANT SELECT ON TABLE public.connection_logs_20200101 TO connlog_purge;


--
-- Name: COLUMN connection_logs_20200101.method; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(method) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.method_known; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(method_known) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.disconnect_inferred; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(disconnect_inferred) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.client_session_id; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(client_session_id) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.user_id; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(user_id) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.boot; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(boot) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.app_name; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(app_name) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.ip; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(ip) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.client_ip; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(client_ip) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.disconnect_reason; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(disconnect_reason) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.code; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(code) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.disconnect_time; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(disconnect_time) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.ended_received_at; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(ended_received_at) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.rx_bytes; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(rx_bytes) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: COLUMN connection_logs_20200101.tx_bytes; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(tx_bytes) ON TABLE public.connection_logs_20200101 TO connlog_ingest;


--
-- Name: TABLE contradictions; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT ON TABLE public.contradictions TO connlog_ingest;
GRANT SELECT ON TABLE public.contradictions TO connlog_query;


--
-- Name: COLUMN contradictions.connect_time; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT(connect_time) ON TABLE public.contradictions TO connlog_purge;


--
-- Name: TABLE feed_consumers; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT ON TABLE public.feed_consumers TO connlog_ingest;
GRANT SELECT ON TABLE public.feed_consumers TO connlog_query;


--
-- Name: TABLE floor; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT ON TABLE public.floor TO connlog_ingest;
GRANT SELECT ON TABLE public.floor TO connlog_query;
GRANT SELECT ON TABLE public.floor TO connlog_purge;


--
-- Name: TABLE ingest_attendance; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.ingest_attendance TO connlog_ingest;
GRANT SELECT ON TABLE public.ingest_attendance TO connlog_query;
GRANT SELECT ON TABLE public.ingest_attendance TO connlog_purge;


--
-- Name: TABLE lost_events; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.lost_events TO connlog_ingest;
GRANT SELECT ON TABLE public.lost_events TO connlog_query;


--
-- Name: COLUMN lost_events.recorded_at; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT(recorded_at) ON TABLE public.lost_events TO connlog_purge;


--
-- Name: TABLE number_key; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT ON TABLE public.number_key TO connlog_ingest;


--
-- Name: TABLE ongoing; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,DELETE ON TABLE public.ongoing TO connlog_ingest;
GRANT SELECT ON TABLE public.ongoing TO connlog_query;
GRANT SELECT ON TABLE public.ongoing TO connlog_purge;


--
-- Name: COLUMN ongoing.boot; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(boot) ON TABLE public.ongoing TO connlog_ingest;


--
-- Name: TABLE organizations; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.organizations TO connlog_ingest;
GRANT SELECT ON TABLE public.organizations TO connlog_query;


--
-- Name: TABLE purge_runs; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT ON TABLE public.purge_runs TO connlog_query;
GRANT SELECT,INSERT ON TABLE public.purge_runs TO connlog_purge;


--
-- Name: TABLE refinery_schema_history; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT ON TABLE public.refinery_schema_history TO connlog_ingest;
GRANT SELECT ON TABLE public.refinery_schema_history TO connlog_query;
GRANT SELECT ON TABLE public.refinery_schema_history TO connlog_purge;


--
-- Name: TABLE rejected_events; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT ON TABLE public.rejected_events TO connlog_ingest;
GRANT SELECT ON TABLE public.rejected_events TO connlog_query;


--
-- Name: COLUMN rejected_events.received_at; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT(received_at) ON TABLE public.rejected_events TO connlog_purge;


--
-- Name: COLUMN rejected_events.spool_id; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(spool_id) ON TABLE public.rejected_events TO connlog_ingest;


--
-- Name: COLUMN rejected_events.seq; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(seq) ON TABLE public.rejected_events TO connlog_ingest;


--
-- Name: COLUMN rejected_events.events; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT UPDATE(events) ON TABLE public.rejected_events TO connlog_ingest;


--
-- Name: TABLE revocations; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT ON TABLE public.revocations TO connlog_ingest;
GRANT SELECT ON TABLE public.revocations TO connlog_query;


--
-- Name: TABLE targets; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT ON TABLE public.targets TO connlog_ingest;
GRANT SELECT ON TABLE public.targets TO connlog_query;
GRANT SELECT ON TABLE public.targets TO connlog_purge;


--
-- Name: TABLE users; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.users TO connlog_ingest;
GRANT SELECT ON TABLE public.users TO connlog_query;


--
-- Name: TABLE workspace_agents; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.workspace_agents TO connlog_ingest;
GRANT SELECT ON TABLE public.workspace_agents TO connlog_query;


--
-- Name: TABLE workspaces; Type: ACL; Schema: public; Owner: connlog_owner
--

GRANT SELECT,INSERT,UPDATE ON TABLE public.workspaces TO connlog_ingest;
GRANT SELECT ON TABLE public.workspaces TO connlog_query;


--
-- PostgreSQL database dump complete
--


