//! `connlog-ingest`: receives connection events over gRPC and acknowledges each only after it is committed.
//!
//! The way of an event: [`grpc`] reads it, [`parse`] makes it a type of the model, [`commit`] gathers batches and gives
//! them to the store, [`service_log`] writes it down, and the acknowledgement goes back. `watch` closes what agents that
//! died left open.

pub mod auth;
pub mod commit;
mod conclusions;
pub mod config;
mod door;
pub mod grpc;
pub mod pace;
pub mod parse;
mod peer;
mod revoked;
mod serve;
pub mod service_log;
mod undecoded;
mod watch;

pub use config::Config;
pub use serve::run;
