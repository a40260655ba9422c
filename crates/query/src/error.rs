//! Errors of the API, and the one table from causes to HTTP statuses. Their shape is that of Coder's API.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use connlog_model::quote::quote;
use connlog_model::search::Invalid;
use connlog_store::StoreError;
use connlog_store::read::Unreachable;
use serde::Serialize;
use utoipa::ToSchema;

/// An error as a client sees it.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// In one sentence.
    message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Which fields of the request are at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    validations: Vec<Validation>,
}

/// A field that is at fault.
#[derive(Debug, Serialize, ToSchema)]
struct Validation {
    /// A parameter, or a key of the search.
    field: String,
    /// What is wrong with it.
    detail: String,
}

impl ApiError {
    fn new(status: StatusCode, message: &str, detail: Option<&str>) -> Self {
        let body =
            ErrorBody { message: message.to_owned(), detail: detail.map(str::to_owned), validations: Vec::new() };
        Self { status, body }
    }

    /// 401: no token, or one that is not recognized.
    pub fn unauthorized(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "You are signed out or your token is not valid.", Some(detail))
    }

    /// 429: too many wrong tokens.
    pub fn too_many_attempts() -> Self {
        let detail = "Too many tokens from this address were not recognized. Try again in a minute.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many failed attempts.", Some(detail))
    }

    /// 429: too many requests without anything that is known.
    pub(crate) fn too_many_requests() -> Self {
        let detail = "Too many requests from this address have no token that is known. Try again in a minute.";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "Too many requests.", Some(detail))
    }

    /// 413: a body that is larger than forms are.
    pub(crate) fn too_large(most: usize) -> Self {
        let detail = format!("At most {most} bytes are taken.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "The form is too large, or broke off.", Some(&detail))
    }

    /// 408: a body that does not come.
    pub(crate) fn too_slow() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "The form took too long to come.", None)
    }

    /// 503: there are too many of these already.
    pub fn too_many(what: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, &format!("Too many {what} at once."), Some("Try again soon."))
    }

    /// 410: a position of the change feed that is gone.
    pub(crate) fn gone() -> Self {
        let detail = "It is of another database, from before a restore, or older than what is kept of the change feed. \
                      Start anew: export everything, and go on from the position of that export.";
        Self::new(StatusCode::GONE, "The position is gone.", Some(detail))
    }

    /// 503: a position that the database for reads does not have yet.
    pub(crate) fn behind() -> Self {
        let detail = "The database for reads does not have it yet. Try again soon.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "The position is not there yet.", Some(detail))
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

    /// 403: a form that another site sent.
    pub(crate) fn forbidden_origin() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden.", Some("This form was not sent by this site."))
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

    /// An organization that does not exist, or is out of the token's reach.
    pub fn out_of_reach(unreachable: &Unreachable) -> Self {
        Self::invalid_search(vec![out_of_reach(unreachable)])
    }

    fn invalid(message: &str, invalid: Vec<Invalid>) -> Self {
        let mut error = Self::new(StatusCode::BAD_REQUEST, message, None);
        error.body.validations =
            invalid.into_iter().map(|invalid| Validation { field: invalid.field, detail: invalid.detail }).collect();
        error
    }
}

/// The two look the same on purpose.
pub(crate) fn out_of_reach(unreachable: &Unreachable) -> Invalid {
    let name = quote(&unreachable.organization);
    Invalid {
        field: "organization".to_owned(),
        detail: format!(
            "Query param \"organization\" has invalid value: organization {name} either does not exist, or you are \
             unauthorized to view it"
        ),
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

impl ApiError {
    /// What a browser goes by.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What went wrong, in one sentence.
    pub(crate) fn message(&self) -> &str {
        &self.body.message
    }

    /// What to do about it, and which fields are at fault, as one text.
    pub(crate) fn explanation(&self) -> String {
        let validations = self.body.validations.iter().map(|validation| validation.detail.as_str());
        self.body.detail.as_deref().into_iter().chain(validations).collect::<Vec<_>>().join(" ")
    }

    /// Headers of the answer.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        let header = match self.status {
            StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, "1")),
            StatusCode::TOO_MANY_REQUESTS => Some((RETRY_AFTER, "60")),
            StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
            _ => None,
        };
        header.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value)))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let headers = self.headers();
        let mut response = (self.status, Json(self.body)).into_response();
        response.headers_mut().extend(headers);
        response
    }
}
