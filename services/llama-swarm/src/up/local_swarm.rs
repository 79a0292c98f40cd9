//! A whole swarm of child processes: started, watched until ready, tended, ended.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures::{Stream, StreamExt, future::join_all};
use swarm_process::address_file::Addresses;
use swarm_types::{ReplicaState, SwarmStatus};
use tokio::{sync::mpsc, time::sleep};

use super::{
    plan::{Plan, ProcessSpec, log_of, secret_of},
    process::tail,
    reach::Access,
    screen::Screen,
    supervisor::{Change, ProcessEvent, ProcessHandle, Supervisor},
};
use crate::{node, status::changes};

/// More events than processes that start at once; a supervisor waits when the queue is full.
const EVENT_QUEUE: usize = 64;

type Statuses = Box<dyn Stream<Item = Result<SwarmStatus>> + Send + Unpin>;

/// The processes of a swarm. To end them in order call [`Self::stop`]; dropping it ends them too.
pub(crate) struct LocalSwarm {
    plan: Plan,
    screen: Screen,
    events: mpsc::Receiver<ProcessEvent>,
    sender: mpsc::Sender<ProcessEvent>,
    processes: Vec<(String, ProcessHandle)>,
    open: HashMap<String, Addresses>,
}

impl LocalSwarm {
    /// A swarm that is not started yet.
    pub(crate) fn new(plan: Plan) -> Self {
        let (sender, events) = mpsc::channel(EVENT_QUEUE);
        Self { plan, screen: Screen::new(), events, sender, processes: vec![], open: HashMap::new() }
    }

    /// What the operator sees.
    pub(crate) fn screen(&self) -> &Screen {
        &self.screen
    }

    /// Where the gateway listens.
    ///
    /// # Errors
    /// When it does not yet.
    pub(crate) fn gateway(&self) -> Result<&Addresses> {
        self.open.get("gateway").context("the gateway has not opened its ports")
    }

    /// Where this machine reaches the gateway's HTTP API.
    pub(crate) fn http(&self) -> Option<SocketAddr> {
        self.gateway().ok()?.http.map(reached)
    }

    /// Who may ask the gateway.
    pub(crate) fn access(&self) -> &Access {
        &self.plan.access
    }

    /// The rendezvous node's multiaddresses.
    pub(crate) fn rendezvous(&self) -> &[String] {
        self.open.get("rendezvous").map_or(&[], |addresses| &addresses.addresses)
    }

    /// The file with its secret.
    pub(crate) fn secret(&self) -> PathBuf {
        secret_of(&self.plan.dir)
    }

    /// Starts all processes and waits until their ports are open.
    ///
    /// # Errors
    /// When one dies, with the end of its log.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.launch(self.plan.rendezvous());
        self.all_open().await?;
        let quic = |address: &&String| address.contains("/quic-v1");
        let entry =
            self.rendezvous().iter().find(quic).context("the rendezvous does not listen on QUIC")?.clone();
        for worker in self.plan.workers(&entry) {
            self.launch(worker);
        }
        self.launch(self.plan.gateway(&entry));
        self.all_open().await
    }

    fn launch(&mut self, spec: ProcessSpec) {
        self.processes.push((spec.name.clone(), Supervisor::start(spec, self.sender.clone())));
    }

    async fn all_open(&mut self) -> Result<()> {
        while self.open.len() < self.processes.len() {
            let event = self.events.recv().await;
            self.must_live(event)?;
        }
        Ok(())
    }

    /// While the swarm comes up, no process may die.
    fn must_live(&mut self, event: Option<ProcessEvent>) -> Result<()> {
        let event = event.context("the supervisors are gone")?;
        match event.change {
            Change::Open(addresses) => {
                self.open.insert(event.name, addresses);
                Ok(())
            }
            Change::Died { reason, .. } => {
                let log = log_of(&self.plan.dir, &event.name);
                bail!("{} {reason}; the end of {}:\n{}", event.name, log.display(), tail(&log))
            }
        }
    }

    /// Waits until the gateway sees every shard loaded; says how long that took since the start.
    ///
    /// # Errors
    /// When a process dies, with the end of its log, or the bound passes, with what is missing.
    pub(crate) async fn ready(&mut self, bound: Duration) -> Result<Duration> {
        let mut statuses = watch(self.gateway()?, self.access()).await?;
        let mut too_late = pin!(sleep(bound));
        let mut last = None;
        loop {
            tokio::select! {
                status = statuses.next() => {
                    let status = status.context("the gateway ended")??;
                    self.screen.progress(&status);
                    if status.swarm_ready {
                        self.screen.end_progress();
                        return Ok(self.screen.elapsed());
                    }
                    last = Some(status);
                }
                event = self.events.recv() => self.must_live(event)?,
                () = &mut too_late => {
                    self.screen.end_progress();
                    bail!("not ready after {} s (--ready-timeout): {}", bound.as_secs(), missing(last.as_ref()))
                }
            }
        }
    }

    /// Says what happens to the swarm, for as long as it is polled. Processes that die are started again meanwhile.
    pub(crate) async fn tend(&mut self) -> Result<()> {
        let (mut statuses, mut last) = (None, None);
        loop {
            if statuses.is_none() {
                statuses = watch(self.gateway()?, self.access()).await.ok();
            }
            tokio::select! {
                status = next(&mut statuses) => match status {
                    Some(status) => self.show(&mut last, status),
                    // The gateway is gone; its supervisor brings it back and says so.
                    None => statuses = None,
                },
                event = self.events.recv() => self.on_event(event.context("the supervisors are gone")?),
            }
        }
    }

    fn show(&self, last: &mut Option<SwarmStatus>, status: SwarmStatus) {
        let lines = last.as_ref().map(|last| changes(last, &status)).unwrap_or_default();
        for line in lines {
            self.screen.line(&line);
        }
        *last = Some(status);
    }

    fn on_event(&mut self, event: ProcessEvent) {
        let name = event.name;
        match event.change {
            Change::Open(addresses) => {
                self.screen.line(&format!("✓ {name} is running again"));
                self.open.insert(name, addresses);
            }
            Change::Died { reason, restart_in } => {
                let (log, pause) = (log_of(&self.plan.dir, &name), restart_in.as_secs_f64());
                self.screen.line(&format!(
                    "✗ {name} {reason}, starting it again in {pause:.2} s (log: {})",
                    log.display()
                ));
            }
        }
    }

    /// Ends all processes: first the gateway, so that nobody asks any more, then the others at once.
    pub(crate) async fn stop(mut self) {
        // Supervisors that wait to tell something must not wait for us.
        self.events.close();
        if let Some(gateway) = self.processes.iter().position(|(name, _)| name == "gateway") {
            self.processes.swap_remove(gateway).1.stop().await;
        }
        join_all(self.processes.into_iter().map(|(_, process)| process.stop())).await;
    }
}

/// Who listens on all addresses is reached on loopback.
fn reached(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn watch(gateway: &Addresses, access: &Access) -> Result<Statuses> {
    let channel = node::connect_with(&gateway.grpc.to_string(), &access.credentials()).await?;
    Ok(Box::new(node::watch(channel).await?))
}

async fn next(statuses: &mut Option<Statuses>) -> Option<SwarmStatus> {
    match statuses {
        Some(statuses) => statuses.next().await?.ok(),
        None => std::future::pending().await,
    }
}

/// What keeps the swarm from being ready.
fn missing(status: Option<&SwarmStatus>) -> String {
    let Some(status) = status else { return "the gateway said nothing".into() };
    let loaded = |replicas: &[swarm_types::Replica]| replicas.iter().any(|r| r.state == ReplicaState::Loaded);
    let missing = status.shards.iter().filter(|shard| !loaded(&shard.replicas));
    let texts: Vec<_> =
        missing.map(|shard| format!("shard {} {}", shard.shard_id, progress(shard))).collect();
    match texts.is_empty() {
        true => "the workers do not agree on one model".into(),
        false => texts.join(", "),
    }
}

fn progress(shard: &swarm_types::ShardStatus) -> String {
    let online = shard.replicas.iter().filter(|replica| replica.state != ReplicaState::Offline);
    match online.map(|replica| replica.capabilities.loaded_percent).max() {
        Some(percent) => format!("is loading ({percent} %)"),
        None => "has no worker".into(),
    }
}
