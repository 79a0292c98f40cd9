//! What stands in front of all paths, and what they answer before the model's header is here: who is let in, in which
//! form errors are told, each request's id.

use std::sync::{Arc, OnceLock};

use axum::{Router, middleware, routing::get};
use swarm_process::metrics::Registry;

use super::{
    ApiConfig,
    api::Api,
    cors, error,
    metrics::HttpMetrics,
    openapi, page, paths,
    requests::{self, Identify},
    status,
};
use crate::{
    access::Access,
    clients::Origin,
    completion::Completer,
    generation::{GenerationConfig, Generator},
    record::LogRequests,
};

/// The HTTP port's paths, from its opening on. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Front {
    parts: Arc<Parts>,
    /// All paths, once there is something to answer with.
    routes: Arc<OnceLock<Router>>,
}

#[derive(Clone)]
struct Parts {
    metrics: HttpMetrics,
    /// For the trace only.
    scheme: &'static str,
    log: LogRequests,
    access: Access,
    origins: Vec<Origin>,
    /// Paths that are there from the beginning.
    others: Router,
}

impl Front {
    /// For whoever `access` lets in; web pages of `origins` may ask as well. Counts in `registry`.
    pub(crate) fn new(
        registry: &Registry,
        scheme: &'static str,
        access: Access,
        origins: Vec<Origin>,
        others: Router,
    ) -> Self {
        let (metrics, log) = (HttpMetrics::new(registry), LogRequests::default());
        let parts = Parts { metrics, scheme, log, access, origins, others };
        Self { parts: Arc::new(parts), routes: Arc::default() }
    }

    /// The same, with a line in the log for each request, or without. Before anything else is made of it.
    pub(crate) fn logging(self, log: LogRequests) -> Self {
        let Self { parts, routes } = self;
        let parts = Parts { log, ..Arc::unwrap_or_clone(parts) };
        Self { parts: Arc::new(parts), routes }
    }

    /// From now on all paths are answered by these. It is said once.
    pub(crate) fn answer_by(
        &self,
        completer: Completer,
        generator: Generator,
        generations: &GenerationConfig,
        tolerance: &ApiConfig,
    ) {
        let metrics = self.parts.metrics.clone();
        let routes = Api::new(completer, generator, metrics, generations, tolerance).routes();
        let _ = self.routes.set(self.parts.around(routes));
    }

    /// All paths, as they are answered at the time.
    pub(crate) fn routes(&self) -> Router {
        let (waiting, routes) = (self.parts.around(waiting()), self.routes.clone());
        paths::forgiving(move || routes.get().unwrap_or(&waiting).clone())
    }
}

impl Parts {
    fn around(&self, routes: Router) -> Router {
        let routes = self.access.guard(routes.merge(self.others.clone()));
        // What a page of others asks before it asks is answered without a key, as browsers want it.
        let routes = match cors::layer(&self.origins) {
            Some(cors) => routes.layer(cors),
            None => routes,
        };
        let routes = routes.layer(middleware::from_fn(error::in_dialect));
        let identify = Identify { metrics: self.metrics.clone(), scheme: self.scheme, log: self.log };
        routes.layer(middleware::from_fn_with_state(identify, requests::identify))
    }
}

/// What can be told without a model.
fn waiting() -> Router {
    Router::new()
        .route("/", get(page::show))
        .route("/openapi.json", get(openapi::show))
        .route("/version", get(status::version))
        .route("/healthz", get(status::healthy))
        .route("/readyz", get(status::waiting))
        .route("/health", get(status::waiting))
        .fallback(error::no_model)
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, header},
    };
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::clients::Hosts;

    async fn asked(routes: &Router, path: &str) -> (u16, Option<String>, Value) {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).expect("a request");
        let answer = routes.clone().oneshot(request).await.expect("an answer");
        let later =
            answer.headers().get(header::RETRY_AFTER).map(|later| later.to_str().expect("text").into());
        let code = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
        (code, later, serde_json::from_slice(&body).unwrap_or_default())
    }

    #[tokio::test]
    async fn without_a_model_what_needs_none_is_answered_and_the_rest_refused_in_its_dialect() {
        let registry = Registry::default();
        let access = Access::new(None, Hosts::new(vec![]));
        let front = Front::new(&registry, "http", access, vec![], registry.routes());
        let routes = front.routes();
        for path in ["/", "/healthz", "/version", "/openapi.json", "/metrics"] {
            assert_eq!(asked(&routes, path).await.0, 200, "{path}");
        }
        let on_its_way = "the model's header is still on its way from the swarm";
        for path in ["/health", "/readyz"] {
            let (code, later, told) = asked(&routes, path).await;
            assert_eq!((code, later.as_deref(), &told["ready"]), (503, Some("1"), &false.into()), "{path}");
            assert_eq!(told["reason"], format!("waiting for the model: {on_its_way}"));
        }
        for (path, message) in [
            ("/v1/models", "/error/message"),
            ("/models/", "/error/message"),
            ("/v1/messages", "/error/message"),
            ("/v1/swarm", "/error/message"),
            ("/api/tags", "/error"),
        ] {
            let (code, later, told) = asked(&routes, path).await;
            assert_eq!((code, later.as_deref()), (503, Some("1")), "{path}");
            let message = told.pointer(message).and_then(Value::as_str).unwrap_or_default();
            assert!(message.contains(on_its_way), "{path}: {told}");
        }
        assert!(registry.encode().contains("http_requests_total{route=\"/health\",code=\"503\"} 1"));
    }
}
