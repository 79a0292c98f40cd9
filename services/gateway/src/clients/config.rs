//! The flags that say who may ask.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use axum::http::HeaderValue;
use clap::Args;
use swarm_process::flags::path_or_none;

/// Who may ask.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Clients")]
pub struct ClientsConfig {
    /// The keys that clients show, a file with one a line (docs/clients.md); read again when it changes. Without it
    /// nobody is asked for a key.
    #[arg(long, env = "LLAMA_SWARM_API_KEYS_FILE", value_name = "FILE", value_parser = path_or_none())]
    pub api_keys_file: Option<PathBuf>,

    /// Listen beyond this machine without keys: everybody who reaches the ports uses the model.
    #[arg(long, env = "LLAMA_SWARM_OPEN_GATEWAY")]
    pub open_gateway: bool,

    /// TCP port of `GET /metrics` alone, where nobody is asked for a key. Without it, metrics are on the other ports,
    /// for whoever has a key.
    #[arg(long, env = "LLAMA_SWARM_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,

    /// Names by which HTTP clients without a key may call this gateway, besides localhost and IP addresses; * for any.
    #[arg(long, env = "LLAMA_SWARM_ALLOWED_HOST", value_name = "NAME", value_delimiter = ',')]
    pub allowed_host: Vec<HostName>,

    /// Web pages of which origins may ask over HTTP, as in `https://chat.example`; * for any [default: none].
    #[arg(long, env = "LLAMA_SWARM_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub cors_origin: Vec<Origin>,
}

impl ClientsConfig {
    /// The file of keys, if there is one.
    #[must_use]
    pub fn keys_file(&self) -> Option<&Path> {
        self.api_keys_file.as_deref().filter(|file| !file.as_os_str().is_empty())
    }
}

/// A name by which a gateway may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostName {
    /// Whatever it is called.
    Any,
    /// This one, in small letters.
    Named(String),
}

impl HostName {
    /// Characters of the longest name (RFC 1035, section 2.3.4).
    pub(super) const LONGEST: usize = 255;

    /// `host` in small letters, without a port.
    pub(super) fn allows(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Named(name) => name == host,
        }
    }
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match text {
            "*" => Ok(Self::Any),
            _ if (1..=Self::LONGEST).contains(&text.len()) && text.chars().all(plain) => {
                Ok(Self::Named(text.trim_end_matches('.').to_ascii_lowercase()))
            }
            _ => Err("must be a name without a port, as in gateway.lan, or *".into()),
        }
    }
}

/// Where a web page comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Wherever.
    Any,
    /// There, as a browser writes it.
    From(HeaderValue),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let host = text.split_once("://").filter(|(scheme, _)| !scheme.is_empty()).map(|(_, host)| host);
        let host = host.filter(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']));
        let value = host.and_then(|_| HeaderValue::from_str(&text.to_ascii_lowercase()).ok());
        value.map(Self::From).ok_or_else(|| "must be scheme://host or scheme://host:port, or *".into())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::From(origin) => f.write_str(&String::from_utf8_lossy(origin.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_origins_are_read_as_browsers_write_them() {
        assert_eq!("Gateway.LAN.".parse(), Ok(HostName::Named("gateway.lan".into())));
        assert_eq!("*".parse(), Ok(HostName::Any));
        for wrong in ["", "gateway:8080", "http://gateway", "*.lan", "a b"] {
            assert!(wrong.parse::<HostName>().is_err(), "{wrong}");
        }
        for right in ["https://chat.example", "http://localhost:3000", "*"] {
            assert_eq!(right.parse::<Origin>().map(|origin| origin.to_string()), Ok(right.into()));
        }
        for wrong in ["", "chat.example", "https://", "https://chat.example/", "https://a@b", "://x"] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }
}
