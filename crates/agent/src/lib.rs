//! The agent's side of connlog: what a workspace reports is on its own disk before anything else happens.
//!
//! [`Reporter`] is what an agent embeds: [`Reporter::connect`] and [`Reporter::disconnect`] return when the event is durable
//! in the [`spool`], and never wait for the network. A background task streams the spool to a server, again and again
//! until it is committed there ([`client`]). [`sidecar`] is the same for programs that come and go: `connlog-agent`.

pub mod client;
mod keeper;
pub mod open;
mod reporter;
pub mod sidecar;
pub mod spool;
mod trace;

pub use reporter::{Config, Connect, Disconnect, ReportError, Reporter, Status};
