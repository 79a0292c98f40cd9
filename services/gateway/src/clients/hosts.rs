//! The names by which this gateway may be called.
//!
//! A web page may let its own name lead to this machine (DNS rebinding): the browser then takes the gateway for the
//! page's own server, and the page may read all answers. It cannot change the name, by which it is known.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header, uri::Authority};

use super::{config::HostName, denied::Denied};

/// The names by which this gateway may be called, besides `localhost` and IP addresses.
#[derive(Clone, Debug, Default)]
pub struct Hosts(Vec<HostName>);

impl Hosts {
    /// These, besides.
    #[must_use]
    pub fn new(allowed: Vec<HostName>) -> Self {
        Self(allowed)
    }

    /// Whether a request calls the gateway by a name of its own, in its `Host` and, by HTTP/2, in `:authority`.
    /// Browsers always name whom they call; a request that names nobody is none of theirs.
    ///
    /// # Errors
    /// Tells the other name.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Denied> {
        let called = uri.authority().map(|authority| authority.as_str().to_owned()).into_iter();
        let hosts = headers.get_all(header::HOST).iter();
        let hosts = hosts.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        for authority in called.chain(hosts) {
            let host = host_of(&authority);
            if !host.is_some_and(|host| self.has(host)) {
                let shown = host.unwrap_or(&authority).chars().take(HostName::LONGEST);
                return Err(Denied::Host { host: shown.collect() });
            }
        }
        Ok(())
    }

    fn has(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.ends_with(".localhost")
            || bare.parse::<IpAddr>().is_ok()
            || self.0.iter().any(|allowed| allowed.allows(&host))
    }
}

/// What stands before the port. Nothing else may stand there, as a user's name might.
fn host_of(authority: &str) -> Option<&str> {
    let host = authority.parse::<Authority>().ok()?.host().len();
    let (host, port) = authority.split_at_checked(host)?;
    (port.is_empty() || port.starts_with(':')).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(allowed: &[&str]) -> Hosts {
        Hosts::new(allowed.iter().map(|name| name.parse().expect("a name")).collect())
    }

    fn may(hosts: &Hosts, uri: &str, host: &[&str]) -> bool {
        let headers = host.iter().map(|host| (header::HOST, host.parse().expect("a value"))).collect();
        hosts.check(&uri.parse().expect("a URI"), &headers).is_ok()
    }

    #[test]
    fn own_names_and_addresses_are_taken_and_all_others_refused() {
        let none = hosts(&[]);
        for own in [
            "localhost",
            "LocalHost:8080",
            "localhost.",
            "x.localhost:1",
            "127.0.0.1",
            "10.0.0.7:8080",
            "[::1]:8080",
            "[2001:db8::1]",
        ] {
            assert!(may(&none, "/", &[own]), "{own}");
        }
        for foreign in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "notlocalhost",
            "127.0.0.1.evil.example",
            "[::1].evil.example",
            "",
            "a b",
            "user@evil.example",
        ] {
            assert!(!may(&none, "/", &[foreign]), "{foreign}");
            assert!(!may(&none, "/", &["localhost", foreign]), "the second of two: {foreign}");
        }
        assert!(may(&none, "/", &[]), "no browser asks without it");
        assert!(!may(&none, "http://evil.example/", &[]), ":authority counts as well");
        assert!(!may(&none, "http://evil.example/", &["localhost"]));
    }

    #[test]
    fn names_that_are_allowed_are_taken_whatever_their_case() {
        let lan = hosts(&["Gateway.lan", "swarm"]);
        assert!(may(&lan, "/", &["gateway.LAN:8080"]) && may(&lan, "/", &["swarm."]));
        assert!(!may(&lan, "/", &["gateway.lan.evil.example"]) && !may(&lan, "/", &["x.swarm"]));
        assert!(may(&hosts(&["*"]), "/", &["evil.example"]));
    }

    #[test]
    fn the_name_and_the_cure_are_told() {
        let headers = [(header::HOST, "evil.example:80".parse().expect("a value"))].into_iter().collect();
        let denied = hosts(&[]).check(&"/".parse().expect("a URI"), &headers).expect_err("refused");
        assert!(denied.to_string().contains("--allowed-host evil.example"), "{denied}");
    }
}
