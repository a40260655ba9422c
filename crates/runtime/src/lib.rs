//! What the services share and that knows nothing of the domain: telemetry, shutdown, the admin listener, the start of a
//! program.

pub mod admin;
pub mod program;
pub mod shutdown;
pub mod telemetry;
