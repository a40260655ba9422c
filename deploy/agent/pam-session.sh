#!/bin/sh
# pam_exec of sshd: `session optional pam_exec.so /usr/local/lib/connlog/pam-session.sh` in /etc/pam.d/sshd. PAM tells
# whether the session opens or closes, but not by which id: the id is kept in a file of the session's process.
# pam_exec runs as root and passes no environment: a spool that is not in the default folder is named here.
# export CONNLOG_AGENT_SPOOL=/home/coder/.connlog
state=${CONNLOG_PAM_STATE:-/run/connlog-agent}
file=$state/$PPID
case ${PAM_TYPE:-} in
    open_session)
        mkdir -p "$state"
        connlog-agent report connect --app ssh ${PAM_RHOST:+--ip "$PAM_RHOST"} > "$file" || rm -f "$file"
        ;;
    close_session)
        if [ -s "$file" ]; then
            connlog-agent report disconnect --id "$(cat "$file")" --app ssh --reason "session closed"
            rm -f "$file"
        fi
        ;;
esac
exit 0
