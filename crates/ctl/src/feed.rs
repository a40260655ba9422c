//! `connlogctl feed`: the consumers of the change feed.

use clap::Subcommand;
use connlog_model::clock::rfc3339;
use connlog_store::Store;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Registers a consumer: changes are kept until it has read them. Prints the position to begin with.
    Register {
        /// Names it, in `consumer=` of its exports: 1 to 64 letters, digits, dots, hyphens or underscores.
        #[arg(value_parser = parse_name)]
        name: String,
    },
    /// Lists consumers: name, when it was registered, when it last came, changes that it has not read, and when it got a gap, if it has one.
    List,
    /// Forgets a consumer.
    Remove {
        /// As it was registered.
        name: String,
    },
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if (1..=64).contains(&text.len()) && text.chars().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("must be 1 to 64 letters, digits, dots, hyphens or underscores".to_owned())
}

pub(crate) async fn run(command: &Command, store: &Store) -> anyhow::Result<()> {
    match command {
        Command::Register { name } => println!("{}", store.register_consumer(name).await?.encode()),
        Command::List => {
            for consumer in store.consumers().await? {
                let gap = consumer.gap_at.map_or_else(|| "-".to_owned(), rfc3339);
                let (registered_at, seen_at) = (rfc3339(consumer.registered_at), rfc3339(consumer.seen_at));
                println!("{}\t{registered_at}\t{seen_at}\t{}\t{gap}", consumer.name, consumer.behind);
            }
        }
        Command::Remove { name } => anyhow::ensure!(store.remove_consumer(name).await?, "there is no consumer {name}"),
    }
    Ok(())
}
