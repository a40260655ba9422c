//! The domain of connlog, free of transport and storage.
//!
//! Everything that arrives from outside becomes a type of this crate before anything acts on it, and the one rule that
//! makes at-least-once delivery exact, the merge of events into connections, lives in [`connection`].

pub mod address;
pub mod app;
pub mod clock;
pub mod connection;
pub mod cursor;
pub mod event;
pub mod identity;
pub mod limits;
pub mod method;
pub mod quote;
pub mod retention;
pub mod role;
pub mod search;
