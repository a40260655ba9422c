//! `connlogctl logs` and `tail`, against the real service.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use clap::Parser;
use connlog_runtime::shutdown::Shutdown;
use connlog_store::roles::QUERY;
use connlog_testkit::fixtures::{self, now};
use connlog_testkit::stage::Stage;
use serde_json::Value;
use tokio::net::TcpListener;

struct Served {
    stage: Stage,
    url: String,
}

async fn served() -> Served {
    let stage = Stage::new(vec![fixtures::site(1, 1)]).await;
    let arguments = ["connlog-query", "--database-url", &stage.database.url_as(QUERY)];
    let config = connlog_query::Config::try_parse_from(arguments).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(connlog_query::run(config, listener, admin, Shutdown::new()));
    Served { stage, url }
}

impl Served {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_connlogctl"));
        command
            .args(arguments)
            .env("CONNLOG_URL", &self.url)
            .env("CONNLOG_TOKEN", &self.stage.auditor)
            .env("TZ", "UTC");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        tokio::task::block_in_place(|| self.command(arguments).output()).unwrap()
    }

    async fn connect(&self, number: u128) {
        self.stage.write(vec![fixtures::connect(&self.stage.sites[0].agent, number, now())]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_a_table_for_people_and_ndjson_for_programs() {
    let stage = served().await;
    for number in 1..=5 {
        stage.connect(number).await;
    }
    let table =
        String::from_utf8(stage.run(&["logs", "type:ssh", "--format", "table", "--limit", "3"]).stdout).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].trim_start().starts_with("TIME"), "{table}");
    assert!(lines[1].contains("user-1/workspace-1") && lines[1].contains("ongoing"), "{table}");

    let all = stage.run(&["logs"]);
    assert!(all.status.success(), "{all:?}");
    let rows: Vec<Value> =
        String::from_utf8(all.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row["connection_method"] == "ssh"));
    let csv = String::from_utf8(stage.run(&["logs", "--format", "csv"]).stdout).unwrap();
    assert_eq!((csv.lines().count(), csv.starts_with("record,id,")), (6, true), "{csv}");
    let two = String::from_utf8(stage.run(&["logs", "--format", "ndjson", "--limit", "2"]).stdout).unwrap();
    assert_eq!(two.lines().count(), 2);

    let refused = stage.run(&["logs", "organisation:acme"]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(message.contains("Did you mean \"organization\"?"), "{message}");
    let unknown = stage.command(&["logs"]).env("CONNLOG_TOKEN", "wrong").output().unwrap();
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("unknown, expired or revoked"));
    assert_eq!(stage.run(&["token", "list"]).status.code(), Some(64), "that needs the database");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_shows_what_happens_while_it_runs() {
    let stage = served().await;
    let position = {
        let rows = stage.run(&["logs", "--format", "ndjson"]);
        assert!(rows.status.success());
        stage.stage.store.feed_end().await.unwrap().encode()
    };
    let mut tail = stage.command(&["tail", "type:ssh", "--since", &position]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    for number in 1..=3 {
        stage.connect(number).await;
        let line = tokio::task::block_in_place(|| lines.next()).unwrap().unwrap();
        let entry: Value = serde_json::from_str(&line).unwrap();
        let id = stage.stage.sites[0].agent.row_id(uuid::Uuid::from_u128(number));
        assert_eq!(entry["id"], id.to_string());
    }
    tail.kill().unwrap();
    tail.wait().unwrap();
}
