//! Errors of the API, and the one table from causes to HTTP statuses. Their shape is that of Coder's API.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use connlog_model::search::Invalid;
use connlog_store::StoreError;
use serde::Serialize;

/// An error as a client sees it.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    validations: Vec<Validation>,
}

#[derive(Debug, Serialize)]
struct Validation {
    field: String,
    detail: String,
}

impl ApiError {
    fn new(status: StatusCode, message: &str, detail: Option<&str>) -> Self {
        let body = Body { message: message.to_owned(), detail: detail.map(str::to_owned), validations: Vec::new() };
        Self { status, body }
    }

    /// 401: no token, or one that is not recognized.
    pub fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "You are signed out or your token is not valid.", Some(detail))
    }

    /// 503: it took too long.
    pub fn timed_out() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The request took too long.", Some("Narrow it down, or try again."))
    }

    /// 500, whose cause is logged where it is handled.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error.", None)
    }

    /// 403: a token without the right.
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden.", Some("This needs a token of role auditor or admin."))
    }

    /// 404.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found.", None)
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed.", None)
    }

    /// 400, because of parameters.
    pub fn invalid_parameters(invalid: Vec<Invalid>) -> Self {
        Self::invalid("Query parameters have invalid values.", invalid)
    }

    /// 400, because of the search query.
    pub fn invalid_search(invalid: Vec<Invalid>) -> Self {
        Self::invalid("Invalid connection search query.", invalid)
    }

    fn invalid(message: &str, invalid: Vec<Invalid>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, message, None);
        error.body.validations =
            invalid.into_iter().map(|invalid| Validation { field: invalid.field, detail: invalid.detail }).collect();
        error
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_unavailable() || error.is_transient() {
            tracing::warn!(error = &error as &dyn std::error::Error, "the database is unavailable");
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "The log is not available.", Some("Try again soon."));
        }
        tracing::error!(error = &error as &dyn std::error::Error, "a request failed");
        Self::internal()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
        }
        response
    }
}
