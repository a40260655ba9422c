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
mod sessions;
mod subject;
mod text;
mod view;
mod zone;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, SET_COOKIE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use crate::audit::Caller;
use crate::error::ApiError;
use crate::serve::{Service, compression};

pub(crate) use self::live::render as live_row;
pub(crate) use self::zone::Zone;

/// Nothing from another host, no script and no style but those of this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The pages.
pub(crate) fn routes(service: Service) -> Router<Service> {
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
        .route("/sessions", get(sessions::list))
        .route("/sessions/end", post(sessions::end))
        .route("/preferences", post(preferences::set))
        .route("/assets/{version}/{name}", get(assets::asset))
        .layer(compression())
        .layer(from_fn_with_state(service, guarded))
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

async fn guarded(State(service): State<Service>, request: Request, next: Next) -> Response {
    let (frame, headers) = (frame_of(&request), request.headers().clone());
    let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
    let is_get = request.method() == Method::GET;
    let response = next.run(request).await;
    let role = caller.bearer().map(|bearer| bearer.token.role.as_str());
    let mut response = guard(page::show_error(response, frame(role)));
    // Not with forms: one of them may have ended the session.
    if is_get
        && let Some(bearer) = caller.bearer()
        && let Some(renewed) = service.authenticator.renew(bearer).await
        && let Ok(cookie) = HeaderValue::try_from(session::set_cookie(&service, &headers, &renewed))
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
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
        (REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
