//! The TCP gRPC port that people and Kubernetes use: health, reflection and the service's public methods.

mod calls;

use std::{io, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware,
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use swarm_proto::DESCRIPTORS;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Status, TimeoutExpired, service::Routes};
use tonic_health::server::HealthReporter;

use crate::{
    bodies::{Bodies, BodyBounds},
    listener::{Bounds, Listener, Tls},
};
use calls::Calls;
pub use calls::SMALL_MESSAGE;

/// A TCP gRPC port that is open but not served yet.
#[derive(Debug)]
pub struct PublicServer {
    listener: Listener,
    health: HealthReporter,
    bodies: Bodies,
    /// Service by service, what a message may have if not [`SMALL_MESSAGE`].
    large: Vec<(&'static str, usize)>,
}

/// What `grpc.health.v1` answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Whether a service can take calls; `""` is the process itself.
    pub async fn set(&self, service: &'static str, serving: bool) {
        use tonic_health::ServingStatus::{NotServing, Serving};
        self.0.set_service_status(service, if serving { Serving } else { NotServing }).await;
    }
}

impl PublicServer {
    /// Opens the port; 0 takes a free one.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::bind_within(address, Bounds::default(), BodyBounds::default()).await
    }

    /// The same with other bounds than a service has.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn bind_within(address: SocketAddr, bounds: Bounds, bodies: BodyBounds) -> io::Result<Self> {
        let listener = Listener::bind(address, "gRPC", "--grpc-listen", bounds).await?;
        Ok(Self { listener, health: HealthReporter::new(), bodies: Bodies::new(bodies), large: vec![] })
    }

    /// Lets requests of `service`, given by its full name, have up to `bytes`.
    #[must_use]
    pub fn with_messages_of(mut self, service: &'static str, bytes: usize) -> Self {
        self.large.push((service, bytes));
        self
    }

    /// With it the port speaks nothing else than TLS.
    #[must_use]
    pub fn secured(self, tls: Option<Tls>) -> Self {
        Self { listener: self.listener.secured(tls), ..self }
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// The handle that sets what health checks answer.
    #[must_use]
    pub fn health(&self) -> Health {
        Health(self.health.clone())
    }

    /// Serves `routes`, health and reflection (v1 and v1alpha) until `shutdown`. `services` are the full names that
    /// reflection lists: only those that this port really serves.
    ///
    /// # Panics
    /// Never: the compiled-in descriptors are valid.
    pub async fn serve(self, services: &[&str], routes: Routes, shutdown: CancellationToken) {
        self.serve_guarded(services, routes, |all| all, shutdown).await;
    }

    /// The same behind a `guard`, through which every request goes, those for health and reflection as well.
    ///
    /// # Panics
    /// Never: the compiled-in descriptors are valid.
    pub async fn serve_guarded(
        self,
        services: &[&str],
        routes: Routes,
        guard: impl FnOnce(Router) -> Router,
        shutdown: CancellationToken,
    ) {
        let reflection = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name("grpc.health.v1.Health");
            services.iter().fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let descriptors = "the compiled-in descriptors are valid";
        let routes = routes
            .add_service(tonic_health::pb::health_server::HealthServer::new(
                tonic_health::server::HealthService::from_health_reporter(self.health),
            ))
            .add_service(reflection().build_v1().expect(descriptors).max_decoding_message_size(SMALL_MESSAGE))
            .add_service(
                reflection().build_v1alpha().expect(descriptors).max_decoding_message_size(SMALL_MESSAGE),
            );
        let calls = Calls::new(self.bodies, self.large);
        let routes = routes
            .into_axum_router()
            .fallback(nothing_there)
            .layer(middleware::from_fn_with_state(calls, calls::bound))
            .layer(middleware::from_fn(keep_deadline));
        self.listener.serve(guard(routes), shutdown).await;
    }
}

/// Clients of gRPC are told in its own form that there is no such service.
async fn nothing_there(request: Request) -> Response {
    let kind = request.headers().get(http::header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    match kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        true => Status::unimplemented(format!("there is no {}", request.uri().path())).into_http(),
        false => http::StatusCode::NOT_FOUND.into_response(),
    }
}

/// Drops a call whose caller waits no longer for its answer to begin.
async fn keep_deadline(request: Request, next: middleware::Next) -> Response {
    let Some(patience) = deadline(request.headers()) else { return next.run(request).await };
    let answer = timeout(patience, next.run(request)).await;
    answer.unwrap_or_else(|_| Status::from_error(Box::new(TimeoutExpired(()))).into_http())
}

/// The caller's patience, as the gRPC protocol writes it in `grpc-timeout`: at most eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits.parse::<u64>().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(3600 * number)),
        "M" => Some(Duration::from_secs(60 * number)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_read_as_the_protocol_writes_them() {
        let read = |text: &str| {
            deadline(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
        };
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("15S"), Some(Duration::from_secs(15)));
        assert_eq!(read("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!((read("7u"), read("7n")), (Some(Duration::from_micros(7)), Some(Duration::from_nanos(7))));
        for wrong in ["", "5", "S", "-1S", "1s", "123456789S", "1 S"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
        assert_eq!(deadline(&HeaderMap::new()), None);
    }
}
