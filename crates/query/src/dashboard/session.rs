//! `/signin` and `/signout`. The session is the token, in a cookie that no script can read: it ends with the token.
//!
//! Forms are taken from this site's own pages only (`Sec-Fetch-Site`, or `Origin` from browsers that do not send it); the cookie is
//! `SameSite=Lax`, and no GET changes anything.

use askama::Template;
use axum::Form;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::header::{HOST, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Extension, http};
use connlog_runtime::listen::PeerAddress;

use super::page::{Frame, PageError, html};
use crate::audit::Caller;
use crate::auth::{SESSION_COOKIE, peer};
use crate::error::ApiError;
use crate::paging::value;
use crate::serve::Service;

/// How long a cookie for a token without an end is kept: 400 days is the most that browsers keep one.
const LONGEST_SECONDS: i64 = 400 * 86_400;

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
    let mut shown = HeaderMap::new();
    match HeaderValue::from_str(&token) {
        Ok(value) if is_cookie_value(&token) => shown.insert("coder-session-token", value),
        _ => return refuse(&ApiError::unauthorized("That is no token: paste it as it was printed.")),
    };
    let address = peer(address.as_ref().map(|Extension(address)| address));
    let recognized = match service.authenticator.recognize(&shown, address).await {
        Ok(recognized) => recognized,
        Err(error) if error.status() == StatusCode::UNAUTHORIZED => {
            return refuse(&ApiError::unauthorized("The token is unknown, expired or revoked."));
        }
        Err(error) => return refuse(&error),
    };
    if let Some(Extension(caller)) = caller {
        caller.is(recognized.clone());
    }
    if !recognized.role.may_read() {
        return refuse(&ApiError::forbidden());
    }
    let left = recognized.expires_at.map(|expires_at| (expires_at - service.clock.now()).num_seconds());
    let seconds = left.unwrap_or(LONGEST_SECONDS).clamp(0, LONGEST_SECONDS);
    let secure = if service.is_secure || arrived_by_tls(&headers) { "; Secure" } else { "" };
    let cookie = format!("{SESSION_COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    Ok(([(SET_COOKIE, cookie)], Redirect::to(&next)).into_response())
}

/// Signs out of this browser. The token stays good: it may be in use elsewhere.
pub(super) async fn sign_out(headers: HeaderMap) -> Result<Response, PageError> {
    if !is_from_here(&headers) {
        return Err(ApiError::forbidden_origin().into());
    }
    let cookie = format!("{SESSION_COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
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

fn arrived_by_tls(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|value| value == "https")
}

/// RFC 6265: no control characters, white space, quotes, commas, semicolons or backslashes.
fn is_cookie_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte))
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
