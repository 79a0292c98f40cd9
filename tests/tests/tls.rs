//! TLS on a gateway's ports: certificates that are renewed under load, and clients that need one of their own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use reqwest::Client;
use serde_json::json;
use swarm_proto::wire::{GetStatusRequest, swarm_service_client::SwarmServiceClient};
use swarm_tests::{BOUND, ModelFile, Process, Swarm, SwarmSpec, llama_swarm, tiny_model};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream, process::Command, time::timeout};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Signs certificates.
struct Signer {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Signer {
    fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(vec![])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?, key })
    }

    fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for loopback and its key, as PEM.
    fn sign(&self) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()])?;
        let certificate = params.signed_by(&key, &self.certificate, &self.key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// A gateway with TLS, and the files of its certificate.
struct Secured {
    swarm: Swarm,
    gateway: Process,
    dir: TempDir,
    _model: ModelFile,
}

impl Secured {
    async fn start(signer: &Signer, flags: &[(&str, &str)]) -> anyhow::Result<Self> {
        let model = tiny_model(1)?;
        let swarm = Swarm::ready(SwarmSpec { total_shards: 1, ..SwarmSpec::new(model.path()) }).await?;
        let dir = TempDir::with_prefix("certificates-")?;
        renew(dir.path(), signer)?;
        let file = |name: &str| dir.path().join(name).display().to_string();
        let mut all = vec!["--tls-cert".to_owned(), file("cert.pem"), "--tls-key".into(), file("key.pem")];
        for (flag, contents) in flags {
            let path = dir.path().join(flag.trim_start_matches('-'));
            std::fs::write(&path, contents)?;
            all.extend([(*flag).to_owned(), path.display().to_string()]);
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let gateway = swarm.another_gateway("secured", &all).await?;
        Ok(Self { swarm, gateway, dir, _model: model })
    }

    fn https(&self) -> String {
        self.gateway.http_url().replace("http://", "https://")
    }

    fn grpcs(&self) -> String {
        self.gateway.grpc_url().replace("http://", "https://")
    }

    async fn is_ready(&self, http: &Client) -> anyhow::Result<()> {
        let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
        while http.get(format!("{}/readyz", self.https())).send().await?.status() != 200 {
            ensure!(since.elapsed() < BOUND, "it does not become ready: {}", self.gateway.log());
            poll.tick().await;
        }
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Writes a new certificate and its key, one after the other, as tools do.
fn renew(dir: &Path, signer: &Signer) -> anyhow::Result<()> {
    let (cert, key) = signer.sign()?;
    std::fs::write(dir.join("cert.pem"), cert)?;
    Ok(std::fs::write(dir.join("key.pem"), key)?)
}

/// Trusts these signers and nobody else.
fn client(signers: &[&Signer]) -> anyhow::Result<reqwest::ClientBuilder> {
    let mut client = Client::builder().tls_built_in_root_certs(false);
    for signer in signers {
        client = client.add_root_certificate(reqwest::Certificate::from_pem(signer.pem().as_bytes())?);
    }
    Ok(client)
}

async fn channel(url: String, tls: ClientTlsConfig) -> anyhow::Result<Channel> {
    Ok(Endpoint::from_shared(url)?.tls_config(tls)?.connect().await?)
}

async fn status(url: String, tls: ClientTlsConfig) -> anyhow::Result<()> {
    SwarmServiceClient::new(channel(url, tls).await?).get_status(GetStatusRequest {}).await?;
    Ok(())
}

/// Connections, HTTP and gRPC, that begin while certificates change.
struct Load<'a> {
    secured: &'a Secured,
    both: ClientTlsConfig,
    over: AtomicBool,
    answered: AtomicUsize,
}

impl Load<'_> {
    async fn ask(&self, http: &Client) -> anyhow::Result<()> {
        let body = json!({"prompt": "hello", "max_tokens": 2, "temperature": 0});
        while !self.over.load(Ordering::Relaxed) {
            let url = format!("{}/v1/completions", self.secured.https());
            let answer = http.post(url).json(&body).send().await.context("HTTP")?;
            ensure!(answer.status() == 200, "{}: {}", answer.status(), answer.text().await?);
            status(self.secured.grpcs(), self.both.clone()).await.context("gRPC")?;
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_under_load_and_no_request_is_lost() -> anyhow::Result<()> {
    let (old, new) = (Signer::new()?, Signer::new()?);
    let secured = Secured::start(&old, &[]).await?;
    let kept_open = client(&[&old, &new])?.build()?;
    let always_new = client(&[&old, &new])?.pool_max_idle_per_host(0).build()?;
    secured.is_ready(&kept_open).await?;
    let pems = old.pem() + &new.pem();
    let load = Load {
        secured: &secured,
        both: ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pems)),
        over: AtomicBool::new(false),
        answered: AtomicUsize::new(0),
    };
    let renewing = async {
        let trusts_new = client(&[&new])?.pool_max_idle_per_host(0).build()?;
        let health = format!("{}/healthz", secured.https());
        assert!(
            trusts_new.get(&health).send().await.is_err(),
            "the old certificate is not signed by the new signer"
        );
        std::fs::write(secured.file("cert.pem"), "not a certificate")?;
        let (since, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(20)));
        // Once a port.
        while secured.gateway.log().matches("changed files are not taken").count() < 2 {
            ensure!(since.elapsed() < BOUND, "no warning: {}", secured.gateway.log());
            poll.tick().await;
        }
        renew(secured.dir.path(), &new)?;
        while trusts_new.get(&health).send().await.is_err() {
            ensure!(since.elapsed() < BOUND, "never renewed: {}", secured.gateway.log());
            poll.tick().await;
        }
        let renewed = load.answered.load(Ordering::Relaxed);
        while load.answered.load(Ordering::Relaxed) < renewed + 4 {
            poll.tick().await;
        }
        load.over.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (open, new) = (load.ask(&kept_open), load.ask(&always_new));
    futures::try_join!(renewing, open, new, load.ask(&always_new))?;
    eprintln!("{} times both ports answered meanwhile", load.answered.load(Ordering::Relaxed));
    assert_eq!(secured.gateway.log().matches("changed files are not taken").count(), 2, "told again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_are_spoken_and_nothing_without_tls() -> anyhow::Result<()> {
    let signer = Signer::new()?;
    let secured = Secured::start(&signer, &[]).await?;
    let http = client(&[&signer])?.build()?;
    secured.is_ready(&http).await?;
    let first = client(&[&signer])?.http1_only().build()?;
    let health = format!("{}/healthz", secured.https());
    assert_eq!(http.get(&health).send().await?.version(), reqwest::Version::HTTP_2, "by ALPN");
    assert_eq!(first.get(&health).send().await?.version(), reqwest::Version::HTTP_11);
    let plain = reqwest::get(format!("{}/healthz", secured.gateway.http_url())).await;
    assert!(plain.is_err(), "{plain:?}");

    let signers = secured.file("signers.pem");
    std::fs::write(&signers, signer.pem())?;
    let ca = signers.display().to_string();
    for command in [
        vec!["status".to_owned(), "--addr".into(), secured.grpcs()],
        vec!["health".to_owned(), "--addr".into(), secured.grpcs(), "--tls-name".into(), "localhost".into()],
        vec![
            "chat".to_owned(),
            "--url".into(),
            secured.https(),
            "--max-tokens".into(),
            "2".into(),
            "hello".into(),
        ],
    ] {
        let run = |ca: &[&str]| Command::new(llama_swarm()).args(&command).args(ca).output();
        assert!(!run(&[]).await?.status.success(), "{command:?}: nobody public has signed it");
        let output = run(&["--tls-ca", &ca]).await?;
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    secured.swarm.gateway.status().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_certificate_is_not_let_in_where_it_needs_one() -> anyhow::Result<()> {
    let (signer, of_clients, others) = (Signer::new()?, Signer::new()?, Signer::new()?);
    let secured = Secured::start(&signer, &[("--client-ca", &of_clients.pem())]).await?;
    let tls = || ClientTlsConfig::new().ca_certificate(Certificate::from_pem(signer.pem()));
    let with = |signer: &Signer| {
        let (cert, key) = signer.sign()?;
        anyhow::Ok(tls().identity(Identity::from_pem(cert, key)))
    };
    assert!(status(secured.grpcs(), tls()).await.is_err(), "without a certificate");
    assert!(status(secured.grpcs(), with(&others)?).await.is_err(), "with one of somebody else");
    status(secured.grpcs(), with(&of_clients)?).await?;
    // HTTP is for browsers and libraries, which have keys.
    secured.is_ready(&client(&[&signer])?.build()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_does_not_hold_a_place_and_disturbs_nobody() -> anyhow::Result<()> {
    let signer = Signer::new()?;
    let secured = Secured::start(&signer, &[]).await?;
    let address: SocketAddr = secured.gateway.http_url().trim_start_matches("http://").parse()?;
    let mut silent = vec![];
    for _ in 0..1100 {
        silent.push(TcpStream::connect(address).await?);
    }
    let http = client(&[&signer])?.build()?;
    timeout(BOUND, secured.is_ready(&http)).await??;
    let mut ended = 0;
    for stream in &mut silent[..64] {
        // Told by the end of the stream, or by a reset.
        let end = timeout(BOUND, stream.read(&mut [0; 16])).await.context("it is not ended")?;
        ended += usize::from(!matches!(end, Ok(1..)));
    }
    assert_eq!(ended, 64);
    Ok(())
}
