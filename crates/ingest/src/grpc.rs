//! The gRPC services, one file each, and the one table from errors to statuses.

pub mod coder;
pub mod directory;
pub mod measure;
pub mod presence;
pub mod report;
pub mod stream;
pub mod unary;

use std::time::Duration;

use connlog_store::StoreError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::parse::Invalid;

/// When a caller that was told UNAVAILABLE or `RESOURCE_EXHAUSTED` should try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The status of an error of the store. What is not the caller's to know is logged here, once.
pub fn status(error: &StoreError) -> Status {
    match error {
        StoreError::Unavailable(_)
        | StoreError::Conflict(_)
        | StoreError::MissingDay(_)
        | StoreError::LockTimeout(_) => unavailable("the log is not available; nothing was acknowledged"),
        StoreError::Invalid(reason) => Status::invalid_argument(reason.clone()),
        _ => {
            tracing::error!(error = error as &dyn std::error::Error, "a call failed");
            Status::internal("internal error")
        }
    }
}

/// The status of a message that cannot be accepted: it names the field.
pub fn invalid(invalid: &Invalid) -> Status {
    let details = ErrorDetails::with_bad_request_violation(invalid.field, invalid.reason.clone());
    Status::with_error_details(Code::InvalidArgument, invalid.to_string(), details)
}

/// UNAUTHENTICATED: an event that happened after its token was replaced comes again with the next token.
pub(crate) fn replaced_status() -> Status {
    Status::unauthenticated("the token was replaced: it is accepted for what happened before")
}

/// UNAVAILABLE, with a hint when to try again.
pub fn unavailable(message: &str) -> Status {
    Status::with_error_details(Code::Unavailable, message, ErrorDetails::with_retry_info(Some(RETRY_AFTER)))
}

/// `RESOURCE_EXHAUSTED`, with a hint when to try again.
pub fn too_much(message: &str) -> Status {
    Status::with_error_details(Code::ResourceExhausted, message, ErrorDetails::with_retry_info(Some(RETRY_AFTER)))
}
