//! Which web pages of others may ask: by the headers that browsers look for (<https://fetch.spec.whatwg.org/#http-cors-protocol>).

use axum::http::{HeaderName, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::ignored;
use crate::clients::Origin;

/// What a page may read of an answer besides its body.
const SHOWN: [HeaderName; 3] =
    [HeaderName::from_static("x-request-id"), header::RETRY_AFTER, ignored::HEADER];

/// The headers for pages of these origins; nothing when there are none, and browsers then let no page ask. A key is
/// sent by the page itself, never by the browser on its own.
pub(super) fn layer(origins: &[Origin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let listed = origins.iter().filter_map(|origin| match origin {
        Origin::Any => None,
        Origin::From(origin) => Some(origin.clone()),
    });
    let allowed = match origins.contains(&Origin::Any) {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(listed),
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(SHOWN);
    Some(layer)
}
