//! What the services share and that knows nothing of the domain: telemetry, shutdown, listeners, TLS, who was
//! recognized, the start of a program.

pub mod admin;
mod frames;
pub mod http;
pub mod listen;
pub mod program;
pub mod recognized;
pub mod shutdown;
pub mod strangers;
pub mod telemetry;
pub mod tls;
pub mod traces;
