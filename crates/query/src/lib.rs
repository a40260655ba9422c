//! `connlog-query`: answers for the connection log over REST, in the words of Coder's API.
//!
//! The way of a request: [`auth`] says who asks and what they may see, the handler of the endpoint (one file each) parses
//! the parameters into the model, the store answers, and [`dto`] shows it.

pub mod audit;
pub mod auth;
pub mod config;
pub mod contradictions;
mod dashboard;
pub mod dto;
pub mod error;
pub mod export;
mod forms;
mod fresh;
pub mod gaps;
mod give;
mod json_text;
pub mod list;
pub mod one;
pub mod openapi;
mod paging;
pub mod pulse;
mod retention;
mod serve;
mod slot;
pub mod stats;
pub mod tail;

pub use config::Config;
pub use serve::{Service, run};
