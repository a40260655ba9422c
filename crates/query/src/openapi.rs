//! The API described: OpenAPI 3.1, made from the code, and a page to try it that needs nothing from elsewhere.

use std::sync::LazyLock;

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{Html, IntoResponse, Response};
use utoipa::OpenApi as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, Ref, ResponseBuilder};

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
        crate::contradictions::contradictions,
        crate::export::export,
        crate::tail::tail,
        crate::stats::stats,
        crate::gaps::gaps,
        crate::retention::retention,
    ),
    components(schemas(crate::export::Format)),
    security(("token" = [])),
    modifiers(&Common),
)]
struct Api;

/// What all operations have in common.
struct Common;

/// Answers that any operation may give.
const ANSWERS: [(&str, &str); 6] = [
    ("400", "A parameter, or the search, is wrong"),
    ("401", "No token, or one that is not recognized"),
    ("403", "A token that may not read the log"),
    ("405", "Not a GET"),
    ("429", "Too many tokens from this address were not recognized"),
    ("503", "The log is not available, it took too long, or too many of these run already"),
];

impl utoipa::Modify for Common {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        for operation in openapi.paths.paths.values_mut().filter_map(|path| path.get.as_mut()) {
            for (status, description) in ANSWERS {
                let body = Content::new(Some(Ref::from_schema_name("ErrorBody")));
                let response = ResponseBuilder::new().description(description).content("application/json", body);
                let answers = &mut operation.responses.responses;
                answers.entry(status.to_owned()).or_insert_with(|| response.build().into());
            }
        }
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
