//! How a node gets to a hub's file that is not on its machine: from peers, with what it kept, or by fetching all of it
//! for everybody. Waits until that is clear.

use std::{sync::Arc, time::Duration};

use model_hub::HubFile;
use swarm_net::{NetError, PeerTorrents, SwarmNet};
use swarm_types::{ModelDigest, Source, WantedSource};
use tokio::time::{Instant, interval, timeout};

use crate::{
    FilesError,
    kept::Kept,
    turns::{Before, Offered, before, offered},
};

/// Others have so long to be found and to say what they have and want, before this node acts on what it knows.
const SETTLED_AFTER: Duration = Duration::from_secs(4);
/// Who has parts already says so before others decide to fetch all.
const KEPT_AFTER: Duration = Duration::from_secs(1);
/// A node that is to enter a swarm, and finds nobody, waits so long.
const ALONE_AFTER: Duration = Duration::from_secs(15);
/// Two that begin in the same moment notice that within so long. Later none of them leaves what it has.
const YIELDS_FOR: Duration = Duration::from_secs(10);
/// When the last holder is gone, another one has so long to come.
const GONE_AFTER: Duration = Duration::from_secs(15);
/// Who waits says so as often.
const TOLD_EVERY: Duration = Duration::from_secs(30);
/// How late something may be noticed that is no news from a peer.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a node gets to its file.
#[derive(Debug)]
pub(crate) enum Way {
    /// Peers hold it.
    Offered(Offered),
    /// A part of it is here.
    Kept(Kept),
    /// Nobody has it, and this node is the one to change that.
    Turn,
}

/// Looks for the way.
pub(crate) struct Hunt<'a> {
    pub(crate) net: &'a SwarmNet,
    pub(crate) file: &'a HubFile,
    /// A part that is here.
    pub(crate) kept: Option<Kept>,
    /// Why this node does not fetch all of it, if it does not.
    pub(crate) only_waits: Option<&'static str>,
}

/// What has been seen of the others so far.
struct Seen {
    before: Option<Before>,
    has_peers: bool,
    since: Instant,
}

impl Hunt<'_> {
    /// Waits for a way. Cancel safe.
    pub(crate) async fn way(&self, wish: &Wish<'_>) -> Result<Way, FilesError> {
        let (mut torrents, mut wants, status) = (self.net.torrents(), self.net.wanted(), self.net.status());
        let (begun, mut told, mut ticks) = (Instant::now(), Instant::now(), interval(LOOK_EVERY));
        let mut seen = Seen { before: None, has_peers: false, since: begun };
        if self.may_fetch() {
            wish.wants();
        }
        loop {
            let (held, served) = (torrents.borrow_and_update().clone(), status.borrow().clone());
            if let Some(offered) = offered(self.file, &held, &served) {
                return Ok(Way::Offered(offered));
            }
            let before = before(self.file, self.net.id(), &wants.borrow_and_update());
            let now = Seen { before, has_peers: self.net.has_peers(), since: Instant::now() };
            let is_news = now.before != seen.before || now.has_peers != seen.has_peers;
            if is_news {
                seen = now;
            }
            if is_news || told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                self.tell(seen.before.as_ref());
            }
            if self.is_settled(begun, &seen) {
                match (&self.kept, &seen.before) {
                    (Some(kept), _) => return Ok(Way::Kept(kept.clone())),
                    (None, None) if self.may_fetch() => return Ok(Way::Turn),
                    _ => {}
                }
            }
            let changed = tokio::select! {
                changed = torrents.changed() => changed,
                changed = wants.changed() => changed,
                _ = ticks.tick() => Ok(()),
            };
            changed.map_err(|_| NetError::Left)?;
        }
    }

    fn may_fetch(&self) -> bool {
        self.kept.is_none() && self.only_waits.is_none()
    }

    fn is_settled(&self, begun: Instant, seen: &Seen) -> bool {
        let (with_others, alone) = match self.kept {
            Some(_) => (KEPT_AFTER, SETTLED_AFTER),
            None => (SETTLED_AFTER, ALONE_AFTER),
        };
        match seen.has_peers || !self.net.enters() {
            true => seen.since.elapsed() >= with_others,
            false => begun.elapsed() >= alone,
        }
    }

    fn tell(&self, before: Option<&Before>) {
        let model = self.file;
        match (before, self.only_waits) {
            (Some(Before::Fetches(node)), _) => {
                tracing::info!(%model, %node, "LOADING: waiting for the node that fetches the model");
            }
            (Some(Before::Wants(node)), _) => {
                tracing::info!(%model, %node, "LOADING: waiting for the node that is to fetch the model");
            }
            (None, Some(why)) => {
                tracing::warn!(%model, why, "LOADING: waiting for a node that has the model");
            }
            (None, None) => {}
        }
    }
}

/// Resolves when another node, which comes before this one, began to fetch the file too.
pub(crate) async fn yields(net: &SwarmNet, file: &HubFile) -> Result<Before, FilesError> {
    let mut wants = net.wanted();
    let other = async {
        loop {
            let first = before(file, net.id(), &wants.borrow_and_update());
            match first {
                Some(other @ Before::Fetches(_)) if other.node() < net.id() => return Ok(other),
                _ => wants.changed().await.map_err(|_| NetError::Left)?,
            }
        }
    };
    match timeout(YIELDS_FOR, other).await {
        Ok(other) => other,
        Err(_) => std::future::pending().await,
    }
}

/// Resolves when nobody has held a torrent for a while.
pub(crate) async fn gone(net: &SwarmNet, info_hash: ModelDigest) -> Result<(), FilesError> {
    let mut torrents = net.torrents();
    let is_held =
        |all: &Arc<PeerTorrents>| all.values().flatten().any(|torrent| torrent.info_hash == info_hash);
    loop {
        torrents.wait_for(|all| !is_held(all)).await.map_err(|_| NetError::Left)?;
        match timeout(GONE_AFTER, torrents.wait_for(is_held)).await {
            Ok(held) => drop(held.map_err(|_| NetError::Left)?),
            Err(_) => return Ok(()),
        }
    }
}

/// Says that this node wants a source, until it is dropped.
pub(crate) struct Wish<'a> {
    net: &'a SwarmNet,
    source: Option<Source>,
}

impl<'a> Wish<'a> {
    /// Says nothing yet.
    pub(crate) fn of(net: &'a SwarmNet, file: &HubFile) -> Self {
        Self { net, source: file.to_string().parse().ok() }
    }

    fn wants(&self) {
        self.say(false);
    }

    /// The node fetches all of it.
    pub(crate) fn fetches(&self) {
        self.say(true);
    }

    fn say(&self, is_fetching: bool) {
        let source = self.source.clone();
        self.net.want(source.map(|source| WantedSource { source, is_fetching }).into_iter().collect());
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.net.want(vec![]);
    }
}
