//! `POST /preferences`: the time zone, and light or dark. Both are cookies: pages are rendered for them.

use axum::Form;
use axum::http::HeaderMap;
use axum::http::header::SET_COOKIE;
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};

use super::page::{PageError, THEME_COOKIE, ZONE_COOKIE};
use super::session::{is_from_here, local};
use super::zone::Zone;
use crate::error::ApiError;
use crate::paging::value;

/// A year.
const KEPT_SECONDS: u32 = 31_536_000;

/// Sets what the form has, and leads back.
pub(super) async fn set(headers: HeaderMap, Form(form): Form<Vec<(String, String)>>) -> Result<Response, PageError> {
    if !is_from_here(&headers) {
        return Err(ApiError::forbidden_origin().into());
    }
    let mut cookies = Vec::new();
    if let Some(zone) = value(&form, "zone") {
        cookies.push((ZONE_COOKIE, Zone::named(zone).name()));
    }
    match value(&form, "theme") {
        Some("light") => cookies.push((THEME_COOKIE, "light")),
        Some("dark") => cookies.push((THEME_COOKIE, "dark")),
        Some(_) => cookies.push((THEME_COOKIE, "system")),
        None => {}
    }
    let cookies = cookies.into_iter().map(|(name, value)| {
        (SET_COOKIE, format!("{name}={value}; Path=/; Max-Age={KEPT_SECONDS}; HttpOnly; SameSite=Lax"))
    });
    let back = local(value(&form, "next"));
    Ok((AppendHeaders(cookies.collect::<Vec<_>>()), Redirect::to(back)).into_response())
}
