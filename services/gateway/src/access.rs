//! The gate of both TCP ports: who asks, whether he may, and by which name he calls this gateway.
//!
//! What may be asked without a key is health, and the live page's own file, which shows nothing by itself. What is
//! counted and limited by key is [`clients`](crate::clients)' business.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use tonic::{Status, transport::server::TcpConnectInfo};

use crate::{
    clients::{Denied, Hosts, Keys, Principal},
    http::ApiError,
    record,
};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Asked by whoever watches over the process.
const HEALTH: [&str; 3] = ["/healthz", "/readyz", "/health"];
const GRPC_HEALTH: &str = "/grpc.health.v1.Health/";
/// A browser asks for it before anybody can type a key.
const PAGE: &str = "/";

/// Who may ask. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Absent: nobody is asked for a key.
    keys: Option<Keys>,
    hosts: Arc<Hosts>,
}

impl Access {
    pub(crate) fn new(keys: Option<Keys>, hosts: Hosts) -> Self {
        Self { keys, hosts: Arc::new(hosts) }
    }

    /// Lets only those through to `routes` who may ask. The routes find the [`Principal`] among a request's extensions.
    pub(crate) fn guard(&self, routes: Router) -> Router {
        routes.layer(middleware::from_fn_with_state(self.clone(), enter))
    }

    fn admit(&self, request: &Request) -> Result<Principal, Denied> {
        let (path, headers) = (request.uri().path(), request.headers());
        let anonymous = Principal::at(address(request));
        if HEALTH.contains(&path) || path.starts_with(GRPC_HEALTH) {
            return Ok(anonymous);
        }
        let shown = shown_keys(headers);
        if let Some(client) = self.keys.iter().find_map(|keys| shown.iter().find_map(|key| keys.find(key))) {
            return Ok(Principal::Client(client));
        }
        // Whoever shows a key is no page of others: none of them has one. Nor is whoever speaks gRPC by HTTP/2, which
        // browsers speak only under TLS, where a foreign name does not fit the certificate.
        if request.version() != Version::HTTP_2 || !is_grpc(headers) {
            self.hosts.check(request.uri(), headers)?;
        }
        match self.keys {
            None => Ok(anonymous),
            Some(_) if path == PAGE => Ok(anonymous),
            Some(_) if shown.is_empty() => Err(Denied::NoKey),
            Some(_) => Err(Denied::UnknownKey),
        }
    }
}

async fn enter(State(access): State<Access>, mut request: Request, next: Next) -> Response {
    match access.admit(&request) {
        Ok(principal) => {
            record::asks(&principal);
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(denied) if is_grpc(request.headers()) => Status::from(denied).into_http(),
        Err(denied) => {
            let mut response = ApiError::from(denied).into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

/// What was shown as a key. A proxy in between may have put something else into one of the two headers.
fn shown_keys(headers: &HeaderMap) -> Vec<&str> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(&header::AUTHORIZATION).and_then(|value| value.split_once(' '));
    let bearer =
        bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
    let keys = bearer.into_iter().chain(text(&X_API_KEY).map(str::trim));
    keys.filter(|key| !key.is_empty()).collect()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn address(request: &Request) -> IpAddr {
    let ends = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    // A connection that is gone already has no end to name.
    ends.map_or(IpAddr::from([0, 0, 0, 0]), |end| end.ip())
}
