#!/bin/sh
# ForceCommand of sshd: `ForceCommand /usr/local/lib/connlog/ssh-session.sh`. Reports the session around the command, and
# ends as the command ends. Reporting never keeps anybody out.
ip=${SSH_CONNECTION%% *}
app=ssh
case ${SSH_ORIGINAL_COMMAND:-} in
    *vscode-server*) app=vscode ;;
    *cursor-server*) app=cursor ;;
    *sftp-server*) app=sftp ;;
esac
id=$(connlog-agent report connect --app "$app" ${ip:+--ip "$ip"}) || id=
if [ -n "${SSH_ORIGINAL_COMMAND:-}" ]; then
    "${SHELL:-/bin/sh}" -c "$SSH_ORIGINAL_COMMAND"
else
    "${SHELL:-/bin/sh}" -l
fi
code=$?
if [ -n "$id" ]; then
    connlog-agent report disconnect --id "$id" --app "$app" --code "$code"
fi
exit "$code"
