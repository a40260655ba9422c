//! All SQL of connlog, over one PostgreSQL.
//!
//! [`Store`] is the only way to the database. [`mod@write`] applies events exactly, [`infer`] ends and reopens what the
//! server concludes, [`read`] answers searches, [`purge`] enforces retention, [`directory`], [`tokens`] and [`browser`] keep who
//! is who. Nothing here knows HTTP or gRPC.

pub mod agents;
mod argument;
mod audit;
pub mod browser;
mod close;
pub mod compact;
mod days;
pub mod directory;
mod error;
pub mod infer;
mod numbers;
mod password;
pub mod purge;
pub mod read;
mod records;
pub mod retention;
mod retry;
mod revocation;
pub mod roles;
mod row;
pub mod schema;
mod session;
mod tls;
pub mod tokens;
pub mod write;
mod xid;

pub use audit::AuditRecord;
pub use error::StoreError;
pub use records::{Hole, LostRecord, RejectedRecord};
pub use session::{Session, Store, StoreConfig, check_url};
