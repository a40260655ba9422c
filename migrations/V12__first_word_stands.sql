-- The first word stands: who said when a connection began, when the log heard of it, and what contradicts what is recorded.

ALTER TABLE open_connections DROP COLUMN attribute_ranks,
    ADD COLUMN start_source smallint DEFAULT 0 CHECK (start_source IN (0, 1)),
    ADD COLUMN method_known boolean NOT NULL DEFAULT true,
    ADD COLUMN received_at timestamptz;
ALTER TABLE open_connections ALTER COLUMN start_source DROP DEFAULT;
COMMENT ON COLUMN open_connections.start_source IS 'See connection_logs.start_source.';
COMMENT ON COLUMN open_connections.method_known IS 'See connection_logs.method_known.';
COMMENT ON COLUMN open_connections.received_at IS 'See connection_logs.received_at.';

ALTER TABLE connection_logs DROP COLUMN attribute_ranks,
    ADD COLUMN start_source smallint DEFAULT 0 CHECK (start_source IN (0, 1)),
    ADD COLUMN method_known boolean NOT NULL DEFAULT true,
    ADD COLUMN received_at timestamptz,
    ADD COLUMN ended_received_at timestamptz;
ALTER TABLE connection_logs ALTER COLUMN start_source DROP DEFAULT;
COMMENT ON COLUMN connection_logs.id IS 'Names the row: UUIDv5 of connection_id, workspace_id and agent_name for a connection to an agent, of workspace_id and event_id for a web event.';
COMMENT ON COLUMN connection_logs.connect_time IS 'When it began; if nobody said so (start_source is NULL), the time of its first event.';
COMMENT ON COLUMN connection_logs.start_source IS 'Who said when it began: 0 the agent, 1 a reporter; NULL if nobody did.';
COMMENT ON COLUMN connection_logs.method_known IS 'Whether an event said how it came; if not, method is 1 until one does.';
COMMENT ON COLUMN connection_logs.received_at IS 'When ingest got the first event about it, by the clock of ingest; NULL in rows from before version 12.';
COMMENT ON COLUMN connection_logs.ended_received_at IS 'When ingest got the end, by the clock of ingest; NULL if the end is inferred, and in rows from before version 12.';

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
COMMENT ON COLUMN contradictions.connect_time IS 'The beginning of the connection as it was recorded then: what retention goes by.';
COMMENT ON COLUMN contradictions.received_at IS 'When ingest got the event, by the clock of ingest.';
COMMENT ON COLUMN contradictions.source IS 'Who said it: 0 the agent, 1 a reporter.';
COMMENT ON COLUMN contradictions.fields IS 'The fields that differ, separated by commas.';
COMMENT ON COLUMN contradictions.claim IS 'The event as it was said.';
CREATE INDEX contradictions_connect_time ON contradictions (connect_time);
COMMENT ON INDEX contradictions_connect_time IS 'Retention.';
