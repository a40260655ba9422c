//! The agent's side of connlog: what a workspace reports is on its own disk before anything else happens.
//!
//! [`spool`] keeps events until the server has committed them.

pub mod spool;
