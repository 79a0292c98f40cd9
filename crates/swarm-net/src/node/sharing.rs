//! Telling of torrents, and finding those who hold one.

use std::{sync::Arc, time::Instant};

use libp2p::kad::{AddProviderResult, GetProvidersResult, QueryId, QueryStats};
use swarm_types::ModelDigest;

use super::{Node, log};
use crate::{
    calls::describe::Description,
    directory::{lookups::Answer, publisher::RECORD_TTL},
    peers::{holdings::OwnFiles, news::News},
};

impl Node {
    /// The service holds or wants something else.
    pub(super) fn on_own_files(&mut self) {
        let OwnFiles { held, wanted } = self.torrents.own.borrow_and_update().clone();
        let now = Instant::now();
        self.torrents.holder.hold(held, now);
        self.description.send_if_modified(|told| {
            let is_new = told.wanted != wanted;
            if is_new {
                *told = Arc::new(Description { wanted, ..Description::clone(told) });
            }
            is_new
        });
        self.tell_torrents(now);
    }

    /// Tells DHT and peers what is due.
    pub(super) fn tell_torrents(&mut self, now: Instant) {
        let holder = &mut self.torrents.holder;
        holder.publish(&mut self.swarm.behaviour_mut().kad, now);
        if let Some(held) = holder.news(now) {
            self.description.send_modify(|told| {
                *told = Arc::new(Description { torrents: held.to_vec(), ..Description::clone(told) });
            });
        }
    }

    /// The nodes that should store that this one holds a torrent were told.
    pub(super) fn on_provided(&mut self, id: QueryId, result: &AddProviderResult, stats: &QueryStats) {
        // Without a peer the DHT calls it a success as well.
        let taken = result.is_ok() && stats.num_successes() > 0;
        if let Some(torrent) = self.torrents.holder.on_provided(id, taken, Instant::now()) {
            log([News::Registered(torrent.clone())]);
        }
    }

    /// A handle wants to know who holds a torrent.
    pub(super) fn find_torrent(&mut self, info_hash: &ModelDigest, answer: Answer) {
        self.torrents.lookups.ask(&mut self.swarm.behaviour_mut().kad, info_hash, answer);
    }

    /// The DHT knows some who hold a torrent: dial them.
    pub(super) fn on_holders(&mut self, id: QueryId, result: GetProvidersResult, last: bool) {
        let now = Instant::now();
        for holder in self.torrents.lookups.on_progress(id, result, last) {
            self.dialer.learn(holder, &[], RECORD_TTL, now);
        }
        self.dial(now);
    }
}
