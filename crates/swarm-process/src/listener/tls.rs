//! TLS on a port: certificates by flag, read again when they change.
//!
//! When a handshake has to be done is the listener's business.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use clap::Args;
use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};

use crate::reread::Reread;

/// The protocols that a port speaks, best first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The flags of a process that can have TLS on its TCP ports.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS")]
pub struct TlsConfig {
    /// Certificate of this process and those it is signed by, PEM; read again when it changes. With it the TCP ports
    /// speak TLS only.
    #[arg(long, env = "LLAMA_SWARM_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// Private key of the certificate, PEM; read again when it changes.
    #[arg(long, env = "LLAMA_SWARM_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Certificates, PEM, of those who sign clients' certificates: then the gRPC port takes only clients that have one
    /// (mutual TLS). Read again when it changes.
    #[arg(long, env = "LLAMA_SWARM_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
}

impl TlsConfig {
    /// TLS for a port whose clients need no certificate of their own, if TLS is asked for.
    ///
    /// # Errors
    /// Names the flag and the file that is not right.
    pub async fn open(&self) -> io::Result<Option<Tls>> {
        self.open_with(None).await
    }

    /// TLS for a port whose clients need a certificate of their own, if that is asked for.
    ///
    /// # Errors
    /// Names the flag and the file that is not right.
    pub async fn open_mutual(&self) -> io::Result<Option<Tls>> {
        self.open_with(self.client_ca.clone()).await
    }

    async fn open_with(&self, client_ca: Option<PathBuf>) -> io::Result<Option<Tls>> {
        let Self { tls_cert: Some(cert), tls_key: Some(key), .. } = self else { return Ok(None) };
        let flags = match &client_ca {
            Some(_) => "--tls-cert, --tls-key, --client-ca",
            None => "--tls-cert, --tls-key",
        };
        let paths = [cert.clone(), key.clone()].into_iter().chain(client_ca).collect();
        let (first, reread) = Reread::open(flags, paths, server).await?;
        Ok(Some(Tls { current: Current(Arc::new(RwLock::new(first))), reread }))
    }
}

/// TLS for one port, and what keeps its certificates those of the files.
pub struct Tls {
    current: Current,
    reread: Reread<Arc<ServerConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("reread", &self.reread).finish_non_exhaustive()
    }
}

impl Tls {
    /// What a port's connections use, and what takes new certificates for as long as it is polled. Connections that
    /// there are go on under the certificate that they began with.
    pub(super) fn split(self) -> (Current, BoxFuture<'static, ()>) {
        let Self { current, reread } = self;
        let taker = current.clone();
        let following = reread.follow(move |config| {
            *taker.0.write().unwrap_or_else(PoisonError::into_inner) = config;
        });
        (current, Box::pin(following))
    }
}

/// The certificates that are shown now. Cheap to clone.
#[derive(Clone)]
pub(super) struct Current(Arc<RwLock<Arc<ServerConfig>>>);

impl Current {
    /// The handshake of a new connection.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        TlsAcceptor::from(config).accept(stream).await
    }
}

/// Of a certificate, its key and, maybe, those who sign clients' certificates. All is made again at a change, sessions
/// that could be resumed included: nobody stays in by what is not valid any more.
fn server(files: &[Vec<u8>]) -> Result<Arc<ServerConfig>, String> {
    let [cert, key, client_ca @ ..] = files else {
        return Err("a certificate and its key are needed".into());
    };
    // The cryptography that the network between nodes uses as well.
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = match client_ca.first() {
        Some(ca) => builder.with_client_cert_verifier(clients(ca, provider)?),
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
    let config = builder.with_single_cert(certificates(cert)?, key);
    let mut config = config.map_err(|error| format!("certificate and key: {error}"))?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err("there is no certificate in PEM".into()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("certificate: {error}")),
    }
}

fn clients(
    ca: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn tokio_rustls::rustls::server::danger::ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| format!("signer of clients: {error}"))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map_err(|error| format!("signers of clients: {error}"))
}
