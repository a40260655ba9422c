#!/bin/sh
# ForceCommand of sshd: `ForceCommand /usr/local/lib/connlog/ssh-session.sh`. Reports the session around the command, and
# ends as the command ends. Reporting never keeps anybody out. It runs as the user who logs in, so the sidecar must run as
# that user, too; where there are several, use pam-session.sh. A spool that is not in the default folder is named in
# sshd_config: `SetEnv CONNLOG_AGENT_SPOOL=/home/coder/.connlog`.
ip=${SSH_CONNECTION%% *}
app=ssh
command=${SSH_ORIGINAL_COMMAND:-}
case $command in
    *vscode-server*) app=vscode ;;
    *cursor-server*) app=cursor ;;
    internal-sftp*) app=sftp command=${SFTP_SERVER:-/usr/lib/openssh/sftp-server} ;;
    *sftp-server*) app=sftp ;;
esac
id=$(connlog-agent report connect --app "$app" ${ip:+--ip "$ip"}) || id=
ended() {
    trap '' HUP INT TERM
    if [ -n "$id" ]; then
        connlog-agent report disconnect --id "$id" --app "$app" --code "$1" ${2:+--reason "$2"}
    fi
    exit "$1"
}
# A terminal that is closed, and an sshd that is stopped, end the session as well.
trap 'ended 129 "hung up"' HUP
trap 'ended 143 "terminated"' TERM
trap : INT
if [ -n "$command" ]; then
    "${SHELL:-/bin/sh}" -c "$command"
else
    "${SHELL:-/bin/sh}" -l
fi
ended $?
