//! `/signin` and `/signout`. A session is a random secret in a cookie that no script can read: it ends with the token that signed in.
//!
//! Forms are taken from this site's own pages only (`Sec-Fetch-Site`, or `Origin` from browsers that do not send it); the cookie is
//! `SameSite=Lax`, and no page changes anything.

use askama::Template;
use axum::Form;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::header::{HOST, ORIGIN, SET_COOKIE, USER_AGENT};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, http};
use connlog_runtime::listen::PeerAddress;

use super::page::{Frame, PageError, html};
use crate::audit::Caller;
use crate::auth::{SessionSecret, peer};
use crate::error::ApiError;
use crate::paging::value;
use crate::serve::Service;

#[derive(Template)]
#[template(path = "signin.html")]
struct SignIn {
    frame: Frame,
    next: String,
    error: Option<String>,
}

/// Shows the form.
pub(super) async fn form(headers: HeaderMap, Query(parameters): Query<Vec<(String, String)>>) -> Response {
    let next = local(value(&parameters, "next")).to_owned();
    html(&SignIn { frame: Frame::of(&headers, "/signin".to_owned(), None), next, error: None })
}

/// Signs in.
pub(super) async fn sign_in(
    State(service): State<Service>,
    address: Option<Extension<ConnectInfo<PeerAddress>>>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    Form(form): Form<Vec<(String, String)>>,
) -> Result<Response, PageError> {
    if !is_from_here(&headers) {
        return Err(ApiError::forbidden_origin().into());
    }
    let next = local(value(&form, "next")).to_owned();
    let token = value(&form, "token").unwrap_or_default().trim().to_owned();
    let refuse = |error: &ApiError| {
        let frame = Frame::of(&headers, "/signin".to_owned(), None);
        let page = SignIn { frame, next: next.clone(), error: Some(error.explanation()) };
        Ok((error.status(), html(&page)).into_response())
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse(&ApiError::unauthorized("That is no token: paste it as it was printed."));
    }
    let address = peer(address.as_ref().map(|Extension(address)| address));
    let recognized = match service.authenticator.recognize_token(&token, address).await {
        Ok(recognized) => recognized,
        Err(error) if error.status() == StatusCode::UNAUTHORIZED => {
            return refuse(&ApiError::unauthorized("The token is unknown, expired or revoked."));
        }
        Err(error) => return refuse(&error),
    };
    if let Some(Extension(caller)) = caller {
        caller.is(recognized.clone());
    }
    if !recognized.token.role.may_read() {
        return refuse(&ApiError::forbidden());
    }
    // A browser has one session.
    if let Err(error) = end_own(&service, &headers).await {
        return refuse(&error);
    }
    let user_agent = headers.get(USER_AGENT).map_or("", |value| value.to_str().unwrap_or_default());
    let begun = service.authenticator.begin_session(&recognized, address, user_agent).await?;
    Ok(([(SET_COOKIE, set_cookie(&service, &headers, &begun))], Redirect::to(&next)).into_response())
}

/// Signs out of this browser. The token stays good: it may be in use elsewhere.
pub(super) async fn sign_out(State(service): State<Service>, headers: HeaderMap) -> Result<Response, PageError> {
    if !is_from_here(&headers) {
        return Err(ApiError::forbidden_origin().into());
    }
    end_own(&service, &headers).await?;
    let cookie = no_cookie(&service, &headers);
    let clear = http::HeaderName::from_static("clear-site-data");
    let headers = [(SET_COOKIE, cookie), (clear, "\"cache\"".to_owned())];
    Ok((headers, Redirect::to("/signin")).into_response())
}

/// Whether a form was sent by one of these pages, or by no browser at all.
pub(super) fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name: http::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(http::HeaderName::from_static("sec-fetch-site")) {
        return site == "same-origin";
    }
    match text(ORIGIN) {
        Some(origin) => origin.split_once("://").is_some_and(|(_, host)| Some(host) == text(HOST)),
        None => true,
    }
}

/// Ends the session of the browser that asks, if it has one.
async fn end_own(service: &Service, headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(bearer) = service.authenticator.session_of(headers).await? {
        service.authenticator.end_sessions(&bearer, bearer.session(), None).await?;
    }
    Ok(())
}

/// Takes the cookie of a session away from a browser.
pub(super) fn no_cookie(service: &Service, headers: &HeaderMap) -> String {
    cookie_of(service, headers, "", 0)
}

/// The cookie of a session, for its browser to keep.
pub(super) fn set_cookie(service: &Service, headers: &HeaderMap, session: &SessionSecret) -> String {
    let seconds = (session.expires_at - service.clock.now()).num_seconds().max(0);
    cookie_of(service, headers, &session.secret, seconds)
}

fn cookie_of(service: &Service, headers: &HeaderMap, secret: &str, seconds: i64) -> String {
    let name = service.authenticator.session_cookie(headers);
    let secure = if service.authenticator.came_by_tls(headers) { "; Secure" } else { "" };
    format!("{name}={secret}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

/// Where to go next: a page of this site, and nowhere else.
pub(super) fn local(next: Option<&str>) -> &str {
    let is_local = |next: &&str| {
        next.starts_with('/') && !next.starts_with("//") && !next.contains(|c: char| c == '\\' || c.is_control())
    };
    next.filter(is_local).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn only_pages_of_this_site_come_next() {
        assert_eq!(local(Some("/picture?q=x")), "/picture?q=x");
        for elsewhere in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "/\0",
            "/\u{85}",
            "",
            "javascript:x",
        ] {
            assert_eq!(local(Some(elsewhere)), "/", "{elsewhere}");
        }
        assert_eq!(local(None), "/");
    }

    #[test]
    fn a_form_of_another_site_is_told_apart() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect()
        };
        for (pairs, expected) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("origin", "http://log.example"), ("host", "log.example")], true),
            (&[("origin", "http://evil.example"), ("host", "log.example")], false),
            (&[("origin", "null"), ("host", "log.example")], false),
            (&[], true),
        ] {
            assert_eq!(is_from_here(&headers(pairs)), expected, "{pairs:?}");
        }
    }
}
