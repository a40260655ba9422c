//! The dashboard: pages for auditors, rendered here, that work without scripts but for what moves.
//!
//! The way of a page: [`page`] says who looks and how they like it, the handler (one file each) asks the store what the API would
//! ask, [`row`] says it in sentences, and a template of `templates/` shows it. Nothing comes from another host, and what users can
//! choose, such as the name of a workspace, goes through [`text`].

mod assets;
mod chart;
mod complete;
mod entry;
mod export;
mod filter;
mod lanes;
mod live;
mod log;
mod page;
mod picture;
mod preferences;
mod record;
mod row;
mod session;
mod subject;
mod text;
mod view;
mod zone;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use connlog_model::role::Role;

use crate::audit::Caller;
use crate::error::ApiError;
use crate::serve::{Service, compression};

pub(crate) use self::live::render as live_row;
pub(crate) use self::zone::Zone;

/// Nothing from another host, no script and no style but those of this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The pages.
pub(crate) fn routes() -> Router<Service> {
    // Events of the tail are small and have to arrive at once.
    Router::new()
        .route("/", get(log::log))
        .route("/filter", get(filter::filter))
        .route("/entries/{id}", get(entry::entry))
        .route("/workspaces/{id}", get(subject::workspace))
        .route("/users/{id}", get(subject::user))
        .route("/picture", get(picture::picture))
        .route("/record", get(record::record))
        .route("/export", get(export::export))
        .route("/complete", get(complete::complete))
        .route("/live", get(live::live))
        .route("/signin", get(session::form).post(session::sign_in))
        .route("/signout", post(session::sign_out))
        .route("/preferences", post(preferences::set))
        .route("/assets/{version}/{name}", get(assets::asset))
        .layer(compression())
        .layer(from_fn(guarded))
}

/// There is no such page: as a page for a browser, as the API says it for anybody else.
pub(crate) async fn not_found(request: Request) -> Response {
    let accepts = request.headers().get(ACCEPT).and_then(|accepts| accepts.to_str().ok()).unwrap_or_default();
    if accepts.contains("text/html") {
        let frame = frame_of(&request);
        guard(page::show_error(page::PageError::from(ApiError::not_found()).into_response(), frame(None)))
    } else {
        ApiError::not_found().into_response()
    }
}

async fn guarded(request: Request, next: Next) -> Response {
    let (frame, caller) = (frame_of(&request), request.extensions().get::<Caller>().cloned());
    let response = next.run(request).await;
    let role = caller.and_then(|caller| caller.role()).map(Role::as_str);
    guard(page::show_error(response, frame(role)))
}

/// The frame of a page about `request`, once it is known whose it is.
fn frame_of(request: &Request) -> impl FnOnce(Option<&'static str>) -> page::Frame + use<> {
    let (headers, is_get) = (request.headers().clone(), request.method() == Method::GET);
    let here = request.uri().path_and_query().filter(|_| is_get).map_or("/", |here| here.as_str()).to_owned();
    move |role| page::Frame::of(&headers, here, role)
}

fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What somebody saw is not kept for whoever sits down next.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
