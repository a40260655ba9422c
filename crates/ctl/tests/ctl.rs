//! `connlogctl`, as the program that it is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::process::{Command, Output};

use connlog_testkit::database::TestDatabase;

const ORGANIZATION: &str = r#"{"kind": "organization", "id": "00000000-0000-0000-0000-000000000001", "name": "Acme"}"#;
const USER: &str = r#"{"kind": "user", "id": "00000000-0000-0000-0000-000000000002", "username": "Ada"}"#;

fn workspace(deleted: bool) -> String {
    format!(
        r#"{{"kind": "workspace", "id": "00000000-0000-0000-0000-000000000003", "organization_id": "00000000-0000-0000-0000-000000000001", "owner_id": "00000000-0000-0000-0000-000000000002", "name": "dev", "deleted": {deleted}}}"#
    )
}

fn agent(token: &str) -> String {
    format!(
        r#"{{"kind": "agent", "id": "00000000-0000-0000-0000-000000000004", "workspace_id": "00000000-0000-0000-0000-000000000003", "name": "main", "token": "{token}"}}"#
    )
}

struct Ctl {
    database: TestDatabase,
    folder: tempfile::TempDir,
}

impl Ctl {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_connlogctl"));
        command.args(["--database-url", self.database.url()]).args(arguments).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn import(&self, lines: &[&str]) -> Output {
        let file = self.folder.path().join("directory.ndjson");
        fs::write(&file, lines.join("\n")).unwrap();
        self.run(&["directory", "import", file.to_str().unwrap()])
    }
}

async fn ctl() -> Ctl {
    Ctl { database: TestDatabase::create().await.unwrap(), folder: tempfile::tempdir().unwrap() }
}

#[tokio::test]
async fn migrate_is_needed_once_and_services_refuse_to_do_without() {
    let ctl = Ctl { database: TestDatabase::create_empty().await.unwrap(), folder: tempfile::tempdir().unwrap() };
    let refused = ctl.run(&["token", "list"]);
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains("the schema is at version 0") && message.contains("run `connlogctl migrate`"),
        "{message}"
    );
    assert_eq!(ctl.ok(&["migrate"]), "applied 1 migrations; the schema is at version 1\n");
    assert_eq!(ctl.ok(&["migrate"]), "applied 0 migrations; the schema is at version 1\n");
    let client = ctl.database.client().await.unwrap();
    client.batch_execute("UPDATE refinery_schema_history SET version = 99 WHERE version = 1").await.unwrap();
    let message = String::from_utf8(ctl.run(&["token", "list"]).stderr).unwrap();
    assert!(message.contains("run a newer version of this program"), "{message}");
}

#[tokio::test]
async fn the_minimum_retention_is_shown_and_set() {
    let ctl = ctl().await;
    assert_eq!(ctl.ok(&["retention", "minimum"]), "0\n");
    for (given, shown) in [("90d", "90d"), ("1d12h", "36h"), ("90m", "90m"), ("61s", "61s"), ("0", "0")] {
        assert_eq!(ctl.ok(&["retention", "minimum", given]), format!("{shown}\n"));
        assert_eq!(ctl.ok(&["retention", "minimum"]), format!("{shown}\n"));
    }
    for bad in ["soon", "--", "1y"] {
        let refused = ctl.run(&["retention", "minimum", "--", bad]);
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    }
    assert_eq!(ctl.run(&["retention", "minimum", "--", "-1d"]).status.code(), Some(64));
}

#[tokio::test]
async fn an_import_is_all_or_nothing_and_names_the_line() {
    let ctl = ctl().await;
    let client = ctl.database.client().await.unwrap();
    for (line, problem) in [
        (r#"{"kind": "user", "id": "x", "username": "a"}"#, "UUID"),
        (r#"{"kind": "robot", "id": "00000000-0000-0000-0000-000000000009"}"#, "unknown variant"),
        (r#"{"kind": "user", "id": "00000000-0000-0000-0000-000000000009"}"#, "missing field `username`"),
        (
            r#"{"kind": "user", "id": "00000000-0000-0000-0000-000000000009", "username": "a", "colour": "red"}"#,
            "unknown field",
        ),
        (r#"{"kind": "user", "id": "00000000-0000-0000-0000-000000000009", "username": ""}"#, "username is empty"),
        ("{", "EOF"),
        ("\u{feff}{}", "byte order mark"),
        (&workspace(false), "owner_id 00000000-0000-0000-0000-000000000002 is not in the directory"),
        (&agent("a-token-that-is-long"), "workspace_id 00000000-0000-0000-0000-000000000003 is not in the directory"),
        (&agent("12345"), "the token has 5 characters, and needs 16"),
    ] {
        let output = ctl.import(&[ORGANIZATION, "", line]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(message.contains("line 3") && message.contains(problem), "{message}");
    }
    let count: i64 = client.query_one("SELECT count(*) FROM organizations", &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
    // An entry may name one that comes after it.
    let lines = [&agent("a-token-that-is-long"), &workspace(false), USER, ORGANIZATION];
    assert!(ctl.import(&lines).status.success());
}

/// Without this, a token is for whichever of two the database gives first.
#[tokio::test]
async fn a_name_that_two_have_in_other_letters_case_means_the_exact_one_or_is_refused() {
    let ctl = ctl().await;
    let organization = |id: u32, name: &str| {
        format!(r#"{{"kind": "organization", "id": "00000000-0000-0000-0000-{id:012}", "name": "{name}"}}"#)
    };
    let user = |id: u32, name: &str| {
        format!(r#"{{"kind": "user", "id": "00000000-0000-0000-0000-{id:012}", "username": "{name}"}}"#)
    };
    let lines = [organization(1, "Default"), organization(2, "default"), user(3, "Alice"), user(4, "alice")];
    assert!(ctl.import(&lines.each_ref().map(String::as_str)).status.success());
    let client = ctl.database.client().await.unwrap();
    for (organization, user, of, is) in [("Default", "Alice", 1, 3), ("default", "alice", 2, 4)] {
        ctl.ok(&["token", "create", "--role", "auditor", "--organization", organization, "--user", user]);
        let sql = "SELECT organizations[1], user_id FROM api_tokens ORDER BY created_at DESC LIMIT 1";
        let row = client.query_one(sql, &[]).await.unwrap();
        let wanted = |id: u32| format!("00000000-0000-0000-0000-{id:012}").parse::<uuid::Uuid>().unwrap();
        assert_eq!((row.get::<_, uuid::Uuid>(0), row.get::<_, uuid::Uuid>(1)), (wanted(of), wanted(is)));
    }
    for (flag, name, ids) in [("--organization", "DEFAULT", [1, 2]), ("--user", "ALICE", [3, 4])] {
        let refused = ctl.run(&["token", "create", "--role", "auditor", flag, name]);
        let message = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{message}");
        for id in ids {
            assert!(message.contains(&format!("00000000-0000-0000-0000-{id:012}")), "{message}");
        }
    }
    ctl.ok(&["token", "create", "--role", "auditor", "--user", "00000000-0000-0000-0000-000000000004"]);
    // Two that have the same name to the letter.
    assert!(ctl.import(&[&organization(5, "Default")]).status.success());
    let refused = ctl.run(&["token", "create", "--role", "auditor", "--organization", "Default"]);
    assert!(String::from_utf8(refused.stderr).unwrap().contains("give the id"));
}

#[tokio::test]
async fn an_empty_variable_is_none_and_what_surrounds_a_value_is_cut_off() {
    let ctl = ctl().await;
    let with = |value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_connlogctl"));
        command.env("CODER_PG_CONNECTION_URL", value).args(["token", "list"]).output().unwrap()
    };
    for url in [format!(" {}", ctl.database.url()), format!("{}\n", ctl.database.url())] {
        assert!(with(&url).status.success(), "{url:?}: {:?}", with(&url));
    }
    for empty in ["", " ", "\n"] {
        let message = String::from_utf8(with(empty).stderr).unwrap();
        assert!(message.contains("--database-url is missing"), "{message}");
    }
}

#[tokio::test]
async fn tokens_of_an_agent_are_revoked_for_good() {
    let ctl = ctl().await;
    let lines = [ORGANIZATION, USER, &workspace(false), &agent("a-token-that-is-long")];
    assert!(ctl.import(&lines).status.success());
    let id = "00000000-0000-0000-0000-000000000004";
    let said = ctl.ok(&["agent", "revoke", id]);
    assert!(said.starts_with("revoked 1 tokens at 20"), "{said}");
    assert!(ctl.import(&lines).status.success(), "a directory may go on naming it");
    let again = ctl.run(&["agent", "revoke", id]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8(again.stderr).unwrap().contains("no token that is accepted"));
    assert!(ctl.import(&[&agent("another-long-token")]).status.success());
    let of_workspace = ["agent", "revoke", "--workspace", "00000000-0000-0000-0000-000000000003"];
    assert!(ctl.ok(&of_workspace).starts_with("revoked 1 tokens"));
    assert_eq!(ctl.run(&["agent", "revoke"]).status.code(), Some(64));
}

#[tokio::test]
async fn tokens_of_agents_expire_by_what_is_deleted_not_by_the_order_of_lines() {
    let ctl = ctl().await;
    let client = ctl.database.client().await.unwrap();
    let states = async || {
        let sql = "SELECT expires_at FROM agent_tokens ORDER BY expires_at NULLS FIRST";
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, Option<std::time::SystemTime>>(0)).collect::<Vec<_>>()
    };
    let (alive, deleted) = (workspace(false), workspace(true));
    assert!(ctl.import(&[ORGANIZATION, USER, &alive, &agent("the-first-token-1")]).status.success());
    assert_eq!(states().await, [None]);
    assert!(ctl.import(&[&agent("the-second-token")]).status.success());
    let rotated = states().await;
    assert!(rotated.len() == 2 && rotated[0].is_none() && rotated[1].is_some(), "the replaced one is accepted a while");
    for lines in [[&deleted, &agent("the-second-token")], [&agent("the-second-token"), &deleted]] {
        assert!(ctl.import(&lines.map(String::as_str)).status.success());
        assert!(states().await.iter().all(Option::is_some), "none is good for ever");
    }
    let before = states().await;
    assert!(ctl.import(&[&agent("the-second-token"), &deleted]).status.success());
    assert_eq!(states().await, before, "an import is idempotent");
}

#[tokio::test]
async fn consumers_of_the_change_feed_are_registered_listed_and_removed() {
    let ctl = ctl().await;
    let position = ctl.ok(&["feed", "register", "siem-1"]);
    assert!(position.lines().count() == 1 && position.trim().len() > 40, "{position}");
    let listed = ctl.ok(&["feed", "list"]);
    let fields: Vec<&str> = listed.trim().split('\t').collect();
    assert!(matches!(fields[..], ["siem-1", _, _, "0", "-"]), "{listed}");
    ctl.ok(&["feed", "remove", "siem-1"]);
    assert_eq!(ctl.ok(&["feed", "list"]), "");
    let missing = ctl.run(&["feed", "remove", "siem-1"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("there is no consumer siem-1"));
    assert_eq!(ctl.run(&["feed", "register", "two words"]).status.code(), Some(64));
}

#[tokio::test]
async fn tokens_are_shown_once_listed_without_their_secret_and_revoked() {
    let ctl = ctl().await;
    assert!(ctl.import(&[ORGANIZATION, USER]).status.success());
    let secret = ctl.ok(&[
        "token",
        "create",
        "--role",
        "auditor",
        "--user",
        "ADA",
        "--organization",
        "acme",
        "--expires",
        "90d",
    ]);
    assert!(secret.starts_with("connlog_") && secret.trim().len() == 72 && secret.lines().count() == 1);
    let by_id = "00000000-0000-0000-0000-000000000001";
    ctl.ok(&["token", "create", "--role", "reporter", "--organization", by_id]);
    let listed = ctl.ok(&["token", "list"]);
    assert!(!listed.contains(secret.trim()) && listed.contains("auditor") && listed.contains("until "), "{listed}");
    let id = listed.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    ctl.ok(&["token", "revoke", &id]);
    assert!(ctl.ok(&["token", "list"]).contains("revoked"));
    assert_eq!(ctl.run(&["token", "revoke", &id]).status.code(), Some(1));
    for bad in [&["token", "create", "--role", "king"][..], &["token", "create", "--role", "admin", "--expires", "0"]] {
        assert_eq!(ctl.run(bad).status.code(), Some(64));
    }
    let nobody = ctl.run(&["token", "create", "--role", "admin", "--user", "nobody"]);
    assert!(String::from_utf8(nobody.stderr).unwrap().contains("--user: there is no user \"nobody\""));
}

/// Without this, whoever lists the processes of the machine has the password, and nobody is told.
#[test]
fn a_password_on_the_command_line_is_warned_about_and_not_repeated() {
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_connlogctl"));
        // Nobody listens on port 1.
        let output = command.args(arguments).arg("migrate").envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let with = "postgresql://me:hunter2@127.0.0.1:1/db";
    let without = "postgresql://me@127.0.0.1:1/db";
    for (arguments, variables, is_warned) in [
        (&["--database-url", with][..], &[][..], true),
        (&["--database-url=host=127.0.0.1 port=1 password=hunter2"], &[], true),
        (&["--database-url", without], &[], false),
        (&[], &[("CODER_PG_CONNECTION_URL", with)], false),
    ] {
        let (code, said) = run(arguments, variables);
        assert_eq!((code, said.contains("warning: ")), (Some(1), is_warned), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let file = file.to_str().unwrap();
    for (url, written, says) in [
        (without, None, "cannot be read"),
        (without, Some("\n"), "has no password"),
        (with, Some("x"), "a URL that has no password"),
    ] {
        if let Some(written) = written {
            fs::write(file, written).unwrap();
        }
        let (code, said) = run(&["--database-url", url, "--database-password-file", file], &[]);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains("--database-password-file") && said.contains(says), "{said}");
    }
}
