//! What all pages have: who looks, how they like it, and how errors look.

use askama::Template;
use axum::Extension;
use axum::extract::FromRequestParts;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use connlog_store::StoreError;
use connlog_store::read::Reach;

use super::text::link;
use super::zone::Zone;
use crate::auth::{Auditor, Bearer, cookie};
use crate::error::ApiError;
use crate::serve::Service;

/// The cookie of the time zone, and that of light or dark.
pub(super) const ZONE_COOKIE: &str = "connlog_zone";
pub(super) const THEME_COOKIE: &str = "connlog_theme";

/// What the frame of a page shows.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// `light`, `dark`, or empty for what the system prefers.
    pub(crate) theme: &'static str,
    pub(crate) zone: Zone,
    /// This page, for whoever comes back to it.
    pub(crate) here: String,
    /// The role of whoever looks; nothing if they are not signed in.
    pub(crate) role: Option<&'static str>,
    /// Names the scripts and styles.
    pub(crate) version: &'static str,
}

impl Frame {
    pub(crate) fn of(headers: &HeaderMap, here: String, role: Option<&'static str>) -> Self {
        let theme = match cookie(headers, THEME_COOKIE) {
            Some("light") => "light",
            Some("dark") => "dark",
            _ => "",
        };
        Self { theme, zone: zone(headers), here, role, version: super::assets::VERSION.as_str() }
    }
}

/// The zone that whoever looks has chosen.
pub(super) fn zone(headers: &HeaderMap) -> Zone {
    Zone::named(cookie(headers, ZONE_COOKIE).unwrap_or_default())
}

/// Whoever looks at a page.
pub(crate) struct Viewer {
    pub(crate) frame: Frame,
    pub(crate) bearer: Bearer,
}

impl Viewer {
    /// What they may see.
    pub(crate) fn reach(&self) -> Reach {
        self.bearer.reach()
    }

    pub(crate) fn zone(&self) -> Zone {
        self.frame.zone
    }
}

impl FromRequestParts<Service> for Viewer {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, PageError> {
        let is_get = parts.method == Method::GET;
        let here = parts.uri.path_and_query().filter(|_| is_get).map_or("/", |here| here.as_str()).to_owned();
        let Auditor(bearer) = Auditor::from_request_parts(parts, service).await.map_err(|error| {
            if error.status() == StatusCode::UNAUTHORIZED { PageError::SignedOut(here.clone()) } else { error.into() }
        })?;
        Ok(Self { frame: Frame::of(&parts.headers, here, Some(bearer.token.role.as_str())), bearer })
    }
}

/// Why there is no page.
#[derive(Debug)]
pub(crate) enum PageError {
    /// Nobody is signed in; with what they wanted to see.
    SignedOut(String),
    /// What the API would say.
    Api(ApiError),
}

impl From<ApiError> for PageError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<StoreError> for PageError {
    fn from(error: StoreError) -> Self {
        Self::Api(error.into())
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    frame: Frame,
    title: String,
    detail: String,
}

/// An error that waits to be shown in the frame of whoever looks.
#[derive(Debug, Clone)]
struct Unshown {
    title: String,
    detail: String,
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let error = match self {
            Self::SignedOut(next) => return Redirect::to(&link("/signin", &[("next", &next)])).into_response(),
            Self::Api(error) => error,
        };
        let unshown = Unshown { title: error.message().to_owned(), detail: error.explanation() };
        let mut response = (error.status(), Extension(unshown)).into_response();
        response.headers_mut().extend(error.headers());
        response
    }
}

/// Puts an error that is in `response` into a page; any other answer is left as it is.
pub(super) fn show_error(mut response: Response, frame: Frame) -> Response {
    let Some(Unshown { title, detail }) = response.extensions_mut().remove() else { return response };
    let page = html(&ErrorPage { frame, title, detail });
    let (mut parts, body) = page.into_parts();
    parts.status = response.status();
    for (name, value) in response.headers() {
        if !parts.headers.contains_key(name) && name != CONTENT_LENGTH {
            parts.headers.insert(name, value.clone());
        }
    }
    Response::from_parts(parts, body)
}

/// A page as an answer.
pub(crate) fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a page cannot be rendered");
            ApiError::internal().into_response()
        }
    }
}
