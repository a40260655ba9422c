-- generate_day: rows of one day. $1 day, $2 rows, $3 number of the first row.
-- Pseudo-random, but the same for the same numbers: every attribute comes from a hash of the row's number.
INSERT INTO connection_logs (id, connect_time, received_at, start_source, disconnect_time, ended_received_at, disconnect_inferred,
    disconnect_reason, code, rx_bytes, tx_bytes, method, method_known, target, connection_id, user_id, app_name, ip, user_agent,
    slug_or_port)
SELECT
    md5('row' || n)::uuid,
    connect_time,
    connect_time + interval '20 ms',
    CASE WHEN web THEN 1 ELSE 0 END,
    CASE WHEN NOT web THEN connect_time + make_interval(secs => 20 + power((hashint8extended(n, 3) & 65535) / 6000.0, 4)) END,
    CASE WHEN NOT web AND NOT inferred
        THEN connect_time + make_interval(secs => 20.02 + power((hashint8extended(n, 3) & 65535) / 6000.0, 4)) END,
    NOT web AND inferred,
    CASE WHEN web THEN NULL WHEN inferred THEN 'agent lost' WHEN (hashint8extended(n, 4) & 7) = 0 THEN 'connection reset by peer' END,
    CASE WHEN web THEN (CASE WHEN (hashint8extended(n, 5) & 31) = 0 THEN 403 ELSE 200 END)
         WHEN NOT inferred THEN (CASE WHEN (hashint8extended(n, 5) & 15) = 0 THEN 255 ELSE 0 END) END,
    CASE WHEN NOT web AND NOT inferred THEN hashint8extended(n, 6) & 16777215 END,
    CASE WHEN NOT web AND NOT inferred THEN hashint8extended(n, 7) & 16777215 END,
    method,
    true,
    targets.target,
    CASE WHEN NOT web THEN md5('connection' || n)::uuid END,
    CASE WHEN web THEN (CASE WHEN (hashint8extended(n, 8) & 15) = 0 THEN NULL
                             WHEN (hashint8extended(n, 8) & 15) = 1 THEN other.id ELSE owners.id END) END,
    CASE WHEN method = 2 THEN 'reconnecting_pty'
         WHEN method = 1 THEN (CASE WHEN (hashint8extended(n, 9) & 524287) = 0 THEN 'mps'
              ELSE (ARRAY['ssh', 'ssh', 'ssh', 'vscode', 'vscode', 'cursor', 'goland', 'zed'])[1 + (hashint8extended(n, 10) & 7)] END) END,
    ('10.' || (hashint8extended(n, 11) & 255) || '.' || (hashint8extended(n, 12) & 255) || '.' || (hashint8extended(n, 13) & 255))::inet,
    CASE WHEN web THEN 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0.0.0' END,
    CASE WHEN method = 3 THEN 'code-server' WHEN method = 4 THEN '8080' WHEN method = 5 THEN '' END
FROM (
    SELECT n, $1::date::timestamp AT TIME ZONE 'UTC' + make_interval(secs => 86400.0 * (n - $3) / $2) AS connect_time,
        hashint8extended(n, 2) & 127 = 0 AS inferred,
        kind, kind IN (3, 4, 5) AS web, kind AS method,
        -- A third of the workspaces has most of the rows.
        floor(power((hashint8extended(n, 14) & 16777215) / 16777216.0, 3) * 6000)::int AS workspace
    FROM (
        SELECT n, (CASE WHEN h < 55 THEN 1 WHEN h < 65 THEN 2 WHEN h < 85 THEN 3 WHEN h < 95 THEN 4 ELSE 5 END)::smallint AS kind
        FROM (SELECT n, (hashint8extended(n, 1) & 1048575) % 100 AS h FROM generate_series($3::bigint, $3 + $2 - 1) AS n) AS hashed
    ) AS kinds
) AS numbers
JOIN workspaces ON workspaces.id = ('c0000000-0000-0000-0000-' || lpad(workspace::text, 12, '0'))::uuid
JOIN targets ON targets.workspace_id = workspaces.id AND targets.agent_name = 'main'
JOIN users owners ON owners.id = workspaces.owner_id
JOIN users other ON other.id = ('b0000000-0000-0000-0000-' || lpad(((hashint8extended(n, 15) & 1023))::text, 12, '0'))::uuid
ORDER BY connect_time
