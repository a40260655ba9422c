-- What version 9 made anew.
DROP TABLE connection_logs_before_9;
