//! Scripts and styles, part of the program. Their address names their content, so browsers keep them for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::error::ApiError;

macro_rules! assets {
    ($($name:literal)*) => { [$(($name, include_str!(concat!("../../assets/", $name)))),*] };
}

const ASSETS: [(&str, &str); 10] = assets!(
    "dashboard.css" "dashboard.js" "brush.js" "complete.js" "copy.js" "export.js" "icon.svg" "keys.js" "live.js" "zone.js"
);

/// A name for what all of them contain.
pub(crate) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: Vec<u8> = ASSETS.iter().flat_map(|(_, content)| content.bytes()).collect();
    format!("{:016x}", Uuid::new_v5(&Uuid::NAMESPACE_OID, &all).as_u64_pair().0)
});

/// Serves one.
pub(super) async fn asset(Path((version, name)): Path<(String, String)>) -> Response {
    let Some((_, content)) = ASSETS.iter().find(|(known, _)| *known == name) else {
        return ApiError::not_found().into_response();
    };
    let content_type = match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    // A page of an older replica may ask this one.
    let keep = if version == *VERSION { "public, max-age=31536000, immutable" } else { "no-store" };
    ([(CONTENT_TYPE, content_type), (CACHE_CONTROL, keep)], *content).into_response()
}
