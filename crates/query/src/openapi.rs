//! The API described: OpenAPI 3.1, made from the code, and a page to try it that needs nothing from elsewhere.

use std::sync::LazyLock;

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use utoipa::OpenApi as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

/// Everything that the API has.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "connlog",
        description = "The connection log of a fleet of cloud development workspaces: who connected to which workspace, when, how, from where, and how it ended.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        crate::list::list,
        crate::one::one,
        crate::export::export,
        crate::tail::tail,
        crate::stats::stats,
        crate::gaps::gaps,
    ),
    security(("token" = [])),
    modifiers(&Token),
)]
struct Api;

struct Token;

impl utoipa::Modify for Token {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The description, as JSON. The committed one, `crates/query/openapi.json`, is checked against it.
pub fn description() -> String {
    let mut text = Api::openapi().to_pretty_json().expect("the description is plain data");
    text.push('\n');
    text
}

/// Serves the description.
pub async fn openapi() -> Response {
    static DESCRIPTION: LazyLock<String> = LazyLock::new(description);
    ([(CONTENT_TYPE, "application/json")], DESCRIPTION.as_str()).into_response()
}

/// Nothing from another host, and no script but this page's own.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves the page.
pub async fn docs() -> Response {
    ([(CONTENT_SECURITY_POLICY, POLICY)], Html(include_str!("openapi/docs.html"))).into_response()
}

/// Serves the script of the page.
pub async fn docs_script() -> Response {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("openapi/docs.js")).into_response()
}

/// Serves the style of the page.
pub async fn docs_style() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("openapi/docs.css")).into_response()
}
