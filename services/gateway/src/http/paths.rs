//! Paths as clients write them: with a slash too many, or without `/v1`.

use std::convert::Infallible;

use axum::{
    Router,
    extract::Request,
    http::{
        Uri,
        uri::{Parts, PathAndQuery},
    },
};
use tower::{ServiceExt, service_fn};

/// What OpenAI's and Anthropic's APIs have under `/v1` and others have without it.
const WITHOUT_VERSION: [&str; 6] =
    ["/chat/completions", "/completions", "/embeddings", "/messages", "/models", "/responses"];

/// The routes that there are at the time, for paths as clients write them.
pub(super) fn forgiving(routes: impl Fn() -> Router + Clone + Send + Sync + 'static) -> Router {
    let service = service_fn(move |mut request: Request| {
        let routes = routes();
        async move {
            if let Some(uri) = meant(request.uri()) {
                *request.uri_mut() = uri;
            }
            Ok::<_, Infallible>(routes.oneshot(request).await.unwrap_or_else(|never| match never {}))
        }
    });
    Router::new().fallback_service(service)
}

/// What is meant, where something else is written.
fn meant(uri: &Uri) -> Option<Uri> {
    let mut path: String = uri
        .path()
        .split('/')
        .filter(|part| !part.is_empty())
        .fold(String::new(), |path, part| path + "/" + part);
    if path.is_empty() {
        path.push('/');
    }
    let is =
        |known: &&str| path.strip_prefix(*known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if WITHOUT_VERSION.iter().any(is) {
        path.insert_str(0, "/v1");
    }
    if path == uri.path() {
        return None;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut parts: Parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path + &query).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_too_many_and_a_version_that_is_left_out_do_no_harm() {
        for (written, expected) in [
            ("/v1/models", None),
            ("/", None),
            ("/v1/models?x=/a//b/", None),
            ("/v1//models", Some("/v1/models")),
            ("//v1/chat/completions/?a=b//", Some("/v1/chat/completions?a=b//")),
            ("/models", Some("/v1/models")),
            ("/models/a/b", Some("/v1/models/a/b")),
            ("/chat/completions", Some("/v1/chat/completions")),
            ("/modelsx", None),
            ("/responses", Some("/v1/responses")),
            ("/messages", Some("/v1/messages")),
            ("/messages/count_tokens", Some("/v1/messages/count_tokens")),
            ("/embeddings", Some("/v1/embeddings")),
            ("/api/embeddings", None),
            ("/api/embed/", Some("/api/embed")),
            ("/tokenize", None),
            ("/api/chat/", Some("/api/chat")),
            ("//", Some("/")),
            ("http://host:1//metrics/", Some("http://host:1/metrics")),
        ] {
            let meant = meant(&written.parse().expect("a URI")).map(|uri| uri.to_string());
            assert_eq!(meant.as_deref(), expected, "{written}");
        }
    }
}
