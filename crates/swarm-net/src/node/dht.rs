//! What the DHT and rendezvous servers say.

use std::time::{Duration, Instant};

use libp2p::{
    Multiaddr, PeerId,
    kad::{self, InboundRequest, QueryResult},
    rendezvous::client,
};
use swarm_types::{Announcement, ShardId};

use super::{Node, log, node_id, now_ms};
use crate::{
    directory::{publisher::RECORD_TTL, queries::Found, records::Subject, registrations, signed::Refused},
    peers::membership::Source,
};

impl Node {
    pub(super) fn on_dht(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest {
                request: InboundRequest::PutRecord { source, record: Some(record), .. },
            } => match self.put(source, record) {
                Ok(announcement) => self.on_announcement(&announcement, Source::Dht),
                Err(refused) => self.refuse(source, &refused),
            },
            kad::Event::InboundRequest { request: InboundRequest::AddProvider { record: Some(record) } } => {
                let provider = record.provider;
                match self.provide(record) {
                    Ok(Subject::Shard(shard)) => self.on_providers(shard, [provider]),
                    // It is connected: who wants to know asks the DHT, or hears it from the peer itself.
                    Ok(Subject::Torrent(_)) => {}
                    Err(refused) => self.refuse(provider, &refused),
                }
            }
            kad::Event::OutboundQueryProgressed { id, result: QueryResult::PutRecord(result), .. } => {
                self.publisher.on_put(id, &result, Instant::now());
            }
            kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::StartProviding(result),
                stats,
                ..
            } => self.on_provided(id, &result, &stats),
            kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::GetProviders(result),
                step,
                ..
            } if self.torrents.lookups.contains(&id) => self.on_holders(id, result, step.last),
            kad::Event::OutboundQueryProgressed { id, result: QueryResult::Bootstrap(_), .. }
                if self.is_told_of_all() =>
            {
                // It has asked for those near itself. To ask for those in each distance costs most of what a start
                // costs the DHT, and finds nobody new.
                if let Some(mut refreshing) = self.swarm.behaviour_mut().kad.query_mut(&id) {
                    refreshing.finish();
                }
            }
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => {
                let kad = &mut self.swarm.behaviour_mut().kad;
                match self.queries.on_progress(kad, id, result, step.last) {
                    Some(Found::Record { query, record }) => self.on_record(query, &record),
                    Some(Found::Providers { shard, providers }) => self.on_providers(shard, providers),
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// Whether a rendezvous names all nodes to this one, or this is the rendezvous.
    fn is_told_of_all(&self) -> bool {
        self.swarm.behaviour().is_rendezvous() || self.registrations.is_told()
    }

    fn put(&mut self, source: PeerId, record: kad::Record) -> Result<Announcement, Refused> {
        self.check_admitted(&source)?;
        self.filter.put(self.swarm.behaviour_mut().kad.store_mut(), source, record, now_ms())
    }

    fn provide(&mut self, record: kad::ProviderRecord) -> Result<Subject, Refused> {
        self.check_admitted(&record.provider)?;
        self.filter.provide(self.swarm.behaviour_mut().kad.store_mut(), record)
    }

    fn check_admitted(&self, source: &PeerId) -> Result<(), Refused> {
        if self.peers.contains_key(source) { Ok(()) } else { Err(Refused::NotAdmitted) }
    }

    fn on_record(&mut self, query: u64, record: &kad::Record) {
        match self.filter.read(record, now_ms()) {
            Ok(announcement) => self.on_announcement(&announcement, Source::Query(query)),
            Err(refused) => {
                tracing::debug!(query, %refused, "found a record that is not to be believed");
                self.metrics.refused(&refused);
            }
        }
    }

    /// A worker's own words, though not from itself: a reason to go and ask it.
    fn on_announcement(&mut self, announcement: &Announcement, source: Source) {
        let Some(peer) = crate::peer::peer_id(&announcement.peer_id).filter(|peer| *peer != self.me) else {
            return;
        };
        let now = Instant::now();
        let left = Duration::from_millis(announcement.expires_at_ms.saturating_sub(now_ms()));
        let addresses: Vec<Multiaddr> =
            announcement.addresses.iter().filter_map(|text| text.parse().ok()).collect();
        self.dialer.learn(peer, &addresses, left.min(RECORD_TTL), now);
        self.dial(now);
        if source == Source::Dht {
            self.queries.hurry(now);
        }
        log(self.membership.heard(&announcement.peer_id, announcement.shard_id, source, now));
    }

    fn on_providers(&mut self, shard: ShardId, providers: impl IntoIterator<Item = PeerId>) {
        let now = Instant::now();
        for provider in providers.into_iter().filter(|provider| *provider != self.me) {
            self.dialer.learn(provider, &[], RECORD_TTL, now);
            log(self.membership.heard(&node_id(&provider), shard, Source::Dht, now));
        }
        self.dial(now);
    }

    fn refuse(&mut self, source: PeerId, refused: &Refused) {
        tracing::debug!(peer = %source, %refused, "record not stored");
        self.metrics.refused(refused);
        let member = self.peers.get_mut(&source).and_then(|peer| peer.member.as_mut());
        if let (Some(member), true) = (member, refused.tells_of_a_clock())
            && !std::mem::replace(&mut member.clock_told, true)
        {
            tracing::warn!(
                peer = %source,
                %refused,
                "the clock of a node, or of this one, is wrong by minutes: what it announces is not taken, set the clocks"
            );
        }
    }

    pub(super) fn on_registrations(&mut self, event: client::Event) {
        let now = Instant::now();
        for (peer, addresses) in self.registrations.on_event(event, now) {
            if peer == self.me {
                let mine: Vec<Multiaddr> = self.swarm.external_addresses().cloned().collect();
                if let Some(other) = self.twins.told_of_me(&addresses, &mine, now) {
                    tracing::warn!(%other, "another node uses this node's identity: give each a key of its own, --identity");
                }
            }
            self.dialer.learn(peer, &addresses, registrations::TTL, now);
        }
        self.dial(now);
        if let Some(client) = self.swarm.behaviour_mut().rendezvous_client.get() {
            self.registrations.tick(client, now);
        }
    }
}
