//! `/sessions`: where somebody is signed in, and how to end that.

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::SET_COOKIE;
use axum::response::{IntoResponse as _, Redirect, Response};
use connlog_model::search::Invalid;
use uuid::Uuid;

use super::page::{Frame, PageError, Viewer, html};
use super::session::{is_from_here, no_cookie};
use super::text::{duration, visible};
use super::zone::Moment;
use crate::error::ApiError;
use crate::paging::value;
use crate::serve::Service;

/// A session that goes on.
struct Row {
    id: Uuid,
    /// What it was begun with, as that said.
    browser: String,
    address: String,
    began: Moment,
    seen: Moment,
    ends: Moment,
    /// Whether this page is shown in it.
    is_own: bool,
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage {
    frame: Frame,
    idle: String,
    all: String,
    rows: Vec<Row>,
}

/// Lists them.
pub(super) async fn list(State(service): State<Service>, viewer: Viewer) -> Result<Response, PageError> {
    let (sessions, own) = service.authenticator.sessions(&viewer.bearer).await?;
    let (zone, lifetimes) = (viewer.zone(), service.authenticator.lifetimes());
    let rows = sessions.into_iter().map(|session| Row {
        id: session.id,
        browser: if session.user_agent.is_empty() { "unknown".to_owned() } else { visible(&session.user_agent) },
        address: session.address.to_string(),
        began: Moment::full(zone, session.started_at),
        seen: Moment::full(zone, session.seen_at),
        ends: Moment::full(zone, session.expires_at),
        is_own: Some(session.id) == own,
    });
    let rows = rows.collect();
    Ok(html(&SessionsPage { frame: viewer.frame, idle: duration(lifetimes.idle), all: duration(lifetimes.all), rows }))
}

/// Ends the one that the form names, or all others.
pub(super) async fn end(
    State(service): State<Service>,
    viewer: Viewer,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    if !is_from_here(&headers) {
        return Err(ApiError::forbidden_origin().into());
    }
    let only = match value(&form, "session") {
        Some(id) => Some(Uuid::parse_str(id).map_err(|_| {
            let detail = "Field \"session\" is not the id of a session".to_owned();
            ApiError::invalid_parameters(vec![Invalid { field: "session".to_owned(), detail }])
        })?),
        None => None,
    };
    let except = if only.is_some() { None } else { viewer.bearer.session() };
    service.authenticator.end_sessions(&viewer.bearer, only, except).await?;
    if only.is_some() && only == viewer.bearer.session() {
        let cookie = no_cookie(&service, &headers);
        return Ok(([(SET_COOKIE, cookie)], Redirect::to("/signin")).into_response());
    }
    Ok(Redirect::to("/sessions").into_response())
}
