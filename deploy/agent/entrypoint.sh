#!/bin/sh
# The entry point of a workspace container: the sidecar runs beside the workload and is started again if it ends.
# Settings: CONNLOG_AGENT_SERVERS, CONNLOG_AGENT_TOKEN_FILE, CONNLOG_AGENT_SPOOL (on a volume that outlives the container).
set -eu
# Before the sidecar is up, hooks leave their events in the drop directory of a spool that is there.
mkdir -p -m 0700 "${CONNLOG_AGENT_SPOOL:-/var/lib/connlog-agent}"
(
    while :; do
        connlog-agent run || true
        sleep 1
    done
) &
exec "$@"
