-- What version 5 replaced. By itself, and the strongest lock first: nothing is lost if it has to be done again.

LOCK TABLE connection_logs IN ACCESS EXCLUSIVE MODE;
DROP INDEX connection_logs_organization;
DROP INDEX connection_logs_workspace_owner;
DROP INDEX connection_logs_workspace;
DROP INDEX connection_logs_session_id_before_5;
DROP INDEX connection_logs_connection_before_5;
