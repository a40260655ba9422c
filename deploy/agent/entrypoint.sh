#!/bin/sh
# The entry point of a workspace container: the sidecar runs beside the workload and is started again if it ends.
# Settings: CONNLOG_AGENT_SERVERS, CONNLOG_AGENT_TOKEN_FILE, CONNLOG_AGENT_SPOOL (on a volume that outlives the container).
set -eu
(
    while :; do
        connlog-agent run || true
        sleep 1
    done
) &
exec "$@"
