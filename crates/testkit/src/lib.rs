//! What connlog's tests and its demo stand on: a private PostgreSQL, a database for each test, fixtures, and instruments
//! that work on the wire, so that what is tested is exactly what is shipped.

pub mod database;
pub mod fault;
pub mod fixtures;
pub mod gate;
pub mod pgwire;
pub mod pooler;
pub mod postgres;
pub mod process;
pub mod stage;
pub mod wait;
