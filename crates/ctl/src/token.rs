//! `connlogctl token`: API tokens. A token is shown once, when it is made.

use anyhow::{Context as _, bail};
use chrono::{TimeDelta, Utc};
use clap::Subcommand;
use connlog_model::clock::{Timestamp, rfc3339, truncate_to_micros};
use connlog_model::retention::parse_positive_duration;
use connlog_model::role::Role;
use connlog_store::Store;
use connlog_store::tokens::{ApiToken, digest, generate};
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a token and prints it, alone, on standard output.
    Create {
        /// auditor, reporter or admin.
        #[arg(long)]
        role: Role,
        /// The user whom `me` means.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Limits the token to this organization; may be repeated.
        #[arg(long, value_name = "NAME")]
        organization: Vec<String>,
        /// How long it is accepted, such as 90d; for ever if not given.
        #[arg(long, value_name = "DURATION", value_parser = parse_positive_duration)]
        expires: Option<TimeDelta>,
    },
    /// Lists all tokens, without their secrets.
    List,
    /// Revokes a token; calls that go on with it end within 10 seconds.
    Revoke {
        /// Its id, as `list` shows it.
        id: Uuid,
    },
}

pub(crate) async fn run(command: Command, store: &Store) -> anyhow::Result<()> {
    let now = truncate_to_micros(Utc::now());
    match command {
        Command::Create { role, user, organization, expires } => {
            println!("{}", create(store, role, user, organization, expires, now).await?);
        }
        Command::List => list(store).await?,
        Command::Revoke { id } => {
            if !store.revoke_token(id, now).await? {
                bail!("there is no token {id} that is not revoked yet");
            }
            println!("revoked {id} at {}; calls that go on end within 10 seconds", rfc3339(now));
        }
    }
    Ok(())
}

async fn create(
    store: &Store,
    role: Role,
    user: Option<String>,
    organizations: Vec<String>,
    expires: Option<TimeDelta>,
    now: Timestamp,
) -> anyhow::Result<String> {
    let user_id = match user {
        Some(name) => Some(store.user_id(&name).await?.with_context(|| format!("--user: there is no user {name:?}"))?),
        None => None,
    };
    let mut reached = Vec::new();
    for name in organizations {
        let id = store.organization_id(&name).await?;
        reached.push(id.with_context(|| format!("--organization: there is no organization {name:?}"))?);
    }
    let expires_at = match expires {
        Some(lifetime) => Some(now.checked_add_signed(lifetime).context("--expires: it is too long")?),
        None => None,
    };
    let token = ApiToken {
        id: Uuid::now_v7(),
        role,
        user_id,
        organizations: (!reached.is_empty()).then_some(reached),
        created_at: now,
        expires_at,
        revoked_at: None,
    };
    let secret = generate();
    store.create_token(&token, &digest(&secret)).await?;
    eprintln!("token {} of role {role}; it is not shown again", token.id);
    Ok(secret)
}

async fn list(store: &Store) -> anyhow::Result<()> {
    println!("{:36}  {:8}  {:36}  {:20}  {:20}  organizations", "id", "role", "user", "created", "state");
    for token in store.api_tokens().await? {
        let state = match (token.revoked_at, token.expires_at) {
            (Some(_), _) => "revoked".to_owned(),
            (None, Some(time)) if time <= Utc::now() => "expired".to_owned(),
            (None, Some(time)) => format!("until {}", time.date_naive()),
            (None, None) => "no expiry".to_owned(),
        };
        let user = token.user_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
        let created = rfc3339(
            token.created_at.to_utc() - TimeDelta::nanoseconds(i64::from(token.created_at.timestamp_subsec_nanos())),
        );
        let organizations = token
            .organizations
            .map_or_else(|| "all".to_owned(), |ids| ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(","));
        println!("{}  {:8}  {user:36}  {created:20}  {state:20}  {organizations}", token.id, token.role.as_str());
    }
    Ok(())
}
