//! The node's registrations at rendezvous servers: registers, renews and asks who else is there, so that a
//! newcomer learns all peers in one round trip. The DHT alone would do; this is faster.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    rendezvous::{Cookie, Namespace, client},
};

use crate::transport::{address, guard::Guard};

/// How long a server keeps a registration that is not renewed.
pub(crate) const TTL: Duration = Duration::from_secs(60);
/// Two lost renewals do not lose the registration.
const RENEW_EVERY: Duration = Duration::from_secs(20);
/// Nodes that start together find each other within this.
const ASK_FAST: Duration = Duration::from_millis(250);
/// Newcomers dial, so those who are there need not ask often; ever less while they hear nothing new.
const ASK_SLOW: Duration = Duration::from_secs(5);
const ASK_SLOWEST: Duration = Duration::from_secs(40);
/// Most of an answer are those who have only renewed their registration. Where a server has told of more than this
/// many, the next pauses are longer in proportion.
const FEW: usize = 25;
/// Questions at the fast pace after registering.
const FAST_QUESTIONS: u32 = 8;
/// More peers than this one server need not tell at once.
const MAX_TOLD: u64 = 1000;

/// The rendezvous client as the node runs it.
pub(crate) type Client = Guard<client::Behaviour>;

/// Registrations at all servers.
#[derive(Debug)]
pub(crate) struct Registrations {
    namespace: Namespace,
    servers: HashMap<PeerId, Server>,
}

#[derive(Debug)]
struct Server {
    register_at: Instant,
    /// Nothing before the first registration: a node registers before it asks, so that nodes that ask later find it.
    ask_at: Option<Instant>,
    asked: u32,
    /// From one question to the next, after the first ones.
    pause: Duration,
    /// Whom it has told of: who renews a registration is told again.
    told: HashSet<PeerId>,
    /// How many the last answer was of, renewed ones too.
    told_last: usize,
    /// What was told already.
    cookie: Option<Cookie>,
}

impl Server {
    /// A pause among few, as it is among as many as there are.
    fn paced(&self, pause: Duration) -> Duration {
        pause.mul_f64((self.told_last as f64 / FEW as f64).max(1.0))
    }
}

impl Registrations {
    pub(crate) fn new(cluster: &str) -> Self {
        let namespace = Namespace::new(cluster.to_owned()).expect("a cluster's name is short");
        Self { namespace, servers: HashMap::new() }
    }

    /// A connected entry speaks the rendezvous protocol.
    pub(crate) fn add(&mut self, server: PeerId, now: Instant) {
        self.servers.entry(server).or_insert(Server {
            register_at: now,
            ask_at: None,
            asked: 0,
            pause: ASK_SLOW,
            told: HashSet::new(),
            told_last: 0,
            cookie: None,
        });
    }

    /// The server is not connected any more.
    pub(crate) fn remove(&mut self, server: &PeerId) {
        self.servers.remove(server);
    }

    /// Whether a server is connected, which tells of all who are registered there.
    pub(crate) fn is_told(&self) -> bool {
        !self.servers.is_empty()
    }

    /// Registers again everywhere: the node's addresses have changed.
    pub(crate) fn addresses_changed(&mut self, now: Instant) {
        for server in self.servers.values_mut() {
            server.register_at = now;
        }
    }

    /// Registers and asks where that is due.
    pub(crate) fn tick(&mut self, client: &mut client::Behaviour, now: Instant) {
        for (peer, server) in &mut self.servers {
            if server.register_at <= now {
                server.register_at = now + RENEW_EVERY;
                if client.register(self.namespace.clone(), *peer, Some(TTL.as_secs())).is_err() {
                    // No address to tell yet.
                    server.register_at = now + ASK_FAST;
                }
            }
            if server.ask_at.is_some_and(|at| at <= now) {
                let is_new = server.asked < FAST_QUESTIONS;
                server.ask_at = Some(now + if is_new { ASK_FAST } else { server.pause });
                if !is_new {
                    server.pause = (2 * server.pause).min(server.paced(ASK_SLOWEST));
                }
                server.asked += 1;
                client.discover(Some(self.namespace.clone()), server.cookie.clone(), Some(MAX_TOLD), *peer);
            }
        }
    }

    /// Takes the answer of a server. Gives the peers it told, with their addresses.
    pub(crate) fn on_event(&mut self, event: client::Event, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        match event {
            client::Event::Registered { rendezvous_node, .. } => {
                if let Some(server) = self.servers.get_mut(&rendezvous_node) {
                    server.ask_at.get_or_insert(now);
                }
            }
            client::Event::RegisterFailed { rendezvous_node, error, .. } => {
                tracing::debug!(peer = %rendezvous_node, ?error, "registration failed");
                if let Some(server) = self.servers.get_mut(&rendezvous_node) {
                    server.register_at = now + Duration::from_secs(1);
                }
            }
            client::Event::DiscoverFailed { rendezvous_node, error, .. } => {
                tracing::debug!(peer = %rendezvous_node, ?error, "rendezvous did not answer");
                if let Some(server) = self.servers.get_mut(&rendezvous_node) {
                    // A restarted server does not know its old cookies.
                    server.cookie = None;
                }
            }
            client::Event::Discovered { rendezvous_node, registrations, cookie } => {
                if let Some(server) = self.servers.get_mut(&rendezvous_node) {
                    server.cookie = Some(cookie);
                    server.told_last = registrations.len();
                    if server.told.len() > 2 * MAX_TOLD as usize {
                        server.told.clear();
                    }
                    let told = registrations.iter().map(|told| told.record.peer_id());
                    if told.filter(|peer| server.told.insert(*peer)).count() > 0 {
                        server.pause = server.paced(ASK_SLOW);
                    }
                }
                return registrations
                    .iter()
                    .filter(|told| told.namespace == self.namespace)
                    .take(MAX_TOLD as usize)
                    .map(|told| (told.record.peer_id(), address::dialable_all(told.record.addresses())))
                    .collect();
            }
            client::Event::Expired { .. } => {}
        }
        vec![]
    }

    /// Withdraws all registrations.
    pub(crate) fn leave(&mut self, client: &mut client::Behaviour) {
        for (server, _) in self.servers.drain() {
            client.unregister(self.namespace.clone(), server);
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{
        core::PeerRecord,
        identity::Keypair,
        rendezvous::{Cookie, Registration},
    };

    use super::*;

    fn registration() -> Registration {
        let here = "/ip4/10.0.0.1/udp/1/quic-v1".parse().unwrap();
        let record = PeerRecord::new(&Keypair::generate_ed25519(), vec![here]).unwrap();
        Registration { namespace: Namespace::from_static("c"), record, ttl: TTL.as_secs() }
    }

    #[test]
    fn who_is_told_of_many_asks_less_often() {
        let (server, now) = (PeerId::random(), Instant::now());
        let pause = |of: usize| {
            let mut asking = Registrations::new("c");
            asking.add(server, now);
            let registrations: Vec<_> = (0..of).map(|_| registration()).collect();
            let cookie = Cookie::for_all_namespaces();
            let told = client::Event::Discovered { rendezvous_node: server, registrations, cookie };
            assert_eq!(asking.on_event(told, now).len(), of);
            asking.servers[&server].pause
        };
        assert_eq!((pause(1), pause(FEW)), (ASK_SLOW, ASK_SLOW));
        assert_eq!(pause(4 * FEW), 4 * ASK_SLOW);
    }
}
