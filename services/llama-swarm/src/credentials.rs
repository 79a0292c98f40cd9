//! What a command shows to a gateway that asks who is there, and by what it knows the gateway.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Certificate, ClientTlsConfig, Identity},
};

/// What helps when a gateway asks for a key.
pub(crate) const KEY_FIX: &str =
    "show a key by --api-key or LLAMA_SWARM_API_KEY; llama-swarm key new makes one";

/// Who asks, and whom he trusts.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Who asks")]
pub(crate) struct Credentials {
    /// The key to show, where the gateway has --api-keys-file.
    #[arg(long, env = "LLAMA_SWARM_API_KEY", value_name = "KEY", hide_env_values = true)]
    api_key: Option<String>,

    /// Certificates, PEM, of those who sign the gateway's, for addresses with https:// [default: the public ones].
    #[arg(long, env = "LLAMA_SWARM_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// Our own certificate, PEM, where a gRPC port has --client-ca.
    #[arg(long, env = "LLAMA_SWARM_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,

    /// The private key of our own certificate, PEM.
    #[arg(long, env = "LLAMA_SWARM_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

impl Credentials {
    /// This key, and trust in the public certificates.
    pub(crate) fn with_key(api_key: Option<String>) -> Self {
        Self { api_key, ..Self::default() }
    }

    /// An HTTP client that shows the key.
    ///
    /// # Errors
    /// When the key or the certificates are none.
    pub(crate) fn http(&self) -> Result<reqwest::ClientBuilder> {
        let mut client = reqwest::Client::builder();
        if let Some(bearer) = self.bearer()? {
            let mut bearer = HeaderValue::from_str(&bearer)?;
            bearer.set_sensitive(true);
            client = client.default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]));
        }
        if let Some(file) = &self.tls_ca {
            let signers = reqwest::Certificate::from_pem_bundle(&read(file, "--tls-ca")?);
            let signers = signers.with_context(|| format!("{} (--tls-ca)", file.display()))?;
            ensure!(!signers.is_empty(), "{} (--tls-ca): there is no certificate in PEM", file.display());
            client = client.tls_built_in_root_certs(false);
            client = signers.into_iter().fold(client, reqwest::ClientBuilder::add_root_certificate);
        }
        Ok(client)
    }

    /// What shows the key with every call over gRPC.
    ///
    /// # Errors
    /// When the key is none.
    pub(crate) fn over_grpc(&self) -> Result<ShowKey> {
        let bearer = self.bearer()?.map(|bearer| bearer.parse::<MetadataValue<Ascii>>()).transpose()?;
        Ok(ShowKey(bearer))
    }

    /// TLS of a gRPC client; `name` is the one in the server's certificate, if it is another than that of the address.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn tls(&self, name: Option<&str>) -> Result<ClientTlsConfig> {
        let mut tls = match &self.tls_ca {
            Some(file) => {
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file, "--tls-ca")?))
            }
            None => ClientTlsConfig::new().with_webpki_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.client_cert, &self.client_key) {
            let (cert, key) = (read(cert, "--client-cert")?, read(key, "--client-key")?);
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Ok(name.into_iter().fold(tls, |tls, name| tls.domain_name(name)))
    }

    fn bearer(&self) -> Result<Option<String>> {
        let Some(key) = self.api_key.as_deref().map(str::trim).filter(|key| !key.is_empty()) else {
            return Ok(None);
        };
        ensure!(key.chars().all(|c| c.is_ascii_graphic()), "--api-key: a key has no spaces and only ASCII");
        Ok(Some(format!("Bearer {key}")))
    }
}

fn read(file: &Path, flag: &str) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read {} ({flag})", file.display()))
}

/// Shows the key, if there is one, with every call.
#[derive(Clone, Debug)]
pub(crate) struct ShowKey(Option<MetadataValue<Ascii>>);

impl Interceptor for ShowKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}
