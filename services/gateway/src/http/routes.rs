//! A router that knows what it has: the document of the API is held against it.

use axum::{
    Router,
    handler::Handler,
    http::Method,
    routing::{get, post},
};

use super::api::Api;

/// Routes and the list of them.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Api>,
    listed: Vec<(Method, &'static str)>,
}

impl Routes {
    pub(super) fn get<H: Handler<T, Api>, T: 'static>(mut self, path: &'static str, handler: H) -> Self {
        self.listed.push((Method::GET, path));
        Self { router: self.router.route(path, get(handler)), ..self }
    }

    pub(super) fn post<H: Handler<T, Api>, T: 'static>(mut self, path: &'static str, handler: H) -> Self {
        self.listed.push((Method::POST, path));
        Self { router: self.router.route(path, post(handler)), ..self }
    }

    pub(super) fn merge(mut self, others: Self) -> Self {
        self.listed.extend(others.listed);
        Self { router: self.router.merge(others.router), ..self }
    }

    /// The same routes with something around them.
    pub(super) fn map(self, around: impl FnOnce(Router<Api>) -> Router<Api>) -> Self {
        Self { router: around(self.router), ..self }
    }

    pub(super) fn router(self) -> Router<Api> {
        self.router
    }

    /// All routes, by method and pattern.
    #[cfg(test)]
    pub(super) fn listed(&self) -> &[(Method, &'static str)] {
        &self.listed
    }
}
