-- What version 7 replaced. By itself, and the strongest lock first: nothing is lost if it has to be done again.

LOCK TABLE connection_logs IN ACCESS EXCLUSIVE MODE;
DROP INDEX connection_logs_session_id_before_7;
