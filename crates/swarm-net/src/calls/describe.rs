//! Nodes describe themselves to each other over their connection: served to peers, and followed from them. In the same
//! service peers say whom nobody is to miss.

use std::{collections::BTreeSet, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use libp2p::PeerId;
use swarm_proto::wire::{
    self, DescribeRequest, DescribeResponse, ForgetPeerRequest, ForgetPeerResponse,
    peer_service_client::PeerServiceClient,
    peer_service_server::{PeerService, PeerServiceServer},
};
use swarm_types::{
    Announcement, HeldTorrent, MAX_ANNOUNCEMENT_BYTES, MAX_HELD_TORRENTS, MAX_SOURCE, MAX_WANTED_SOURCES,
    WantedSource,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::WatchStream;
use tonic::{Request, Response, Status};

use crate::{
    NetError, PeerInfo,
    calls::links::Links,
    command::Command,
    directory::{
        records::Keys,
        signed::{self, Refused},
    },
    metrics::Metrics,
    peer,
    peers::{dialer::backoff, missed::MAX_TOLD},
};

/// A peer that describes itself without end is heard this often.
const HEAR_EVERY: Duration = Duration::from_millis(20);
/// Of one torrent in a description, with all its texts as long as they may be.
const MAX_TORRENT_BYTES: usize = 512 + MAX_SOURCE;
/// Of one wanted source.
const MAX_WANTED_BYTES: usize = 16 + MAX_SOURCE;
/// Of a peer id.
const MAX_PEER_BYTES: usize = 80;
/// The first description comes at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What a node says of itself.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Description {
    /// Signed, one for each shard that the node serves.
    pub(crate) announcements: Vec<Bytes>,
    /// Those that the node holds.
    pub(crate) torrents: Vec<HeldTorrent>,
    /// Those of which the node has nothing yet.
    pub(crate) wanted: Vec<WantedSource>,
    /// Members that the node has just noticed as gone.
    pub(crate) missed: Vec<PeerId>,
}

impl From<&Description> for DescribeResponse {
    fn from(description: &Description) -> Self {
        let torrents = description.torrents.iter().cloned().map(Into::into).collect();
        let wanted_sources =
            description.wanted.iter().take(MAX_WANTED_SOURCES).cloned().map(Into::into).collect();
        let lost_peers = description.missed.iter().map(ToString::to_string).collect();
        Self { announcements: description.announcements.clone(), torrents, wanted_sources, lost_peers }
    }
}

/// Serves `PeerService` to peers.
#[derive(Clone, Debug)]
pub struct Descriptions {
    own: watch::Receiver<Arc<Description>>,
    commands: mpsc::WeakSender<Command>,
}

/// [`Descriptions`] as a tonic server takes them.
pub type DescribeServer = PeerServiceServer<Descriptions>;

impl Descriptions {
    pub(crate) fn server(
        own: watch::Receiver<Arc<Description>>,
        commands: mpsc::WeakSender<Command>,
    ) -> DescribeServer {
        PeerServiceServer::new(Self { own, commands })
    }
}

#[tonic::async_trait]
impl PeerService for Descriptions {
    type DescribeStream = Pin<Box<dyn Stream<Item = Result<DescribeResponse, Status>> + Send>>;

    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<Self::DescribeStream>, Status> {
        let changes = WatchStream::new(self.own.clone()).map(|own| Ok(own.as_ref().into()));
        Ok(Response::new(changes.boxed()))
    }

    async fn forget_peer(
        &self,
        request: Request<ForgetPeerRequest>,
    ) -> Result<Response<ForgetPeerResponse>, Status> {
        let by = request.extensions().get::<PeerInfo>().and_then(|peer| peer::peer_id(&peer.node));
        let by = by.ok_or_else(|| Status::unauthenticated("only peers say whom nobody is to miss"))?;
        let peer: PeerId = (request.get_ref().peer.parse())
            .map_err(|_| Status::invalid_argument("peer: is no peer id, for example 12D3KooW…"))?;
        let left = || Status::unavailable("this node has left the swarm");
        let (answer, forgotten) = oneshot::channel();
        let commands = self.commands.upgrade().ok_or_else(left)?;
        let forget = Command::Forget { peer, by: Some(by), answer };
        commands.send(forget).await.map_err(|_| left())?;
        drop(commands);
        let forgotten = forgotten.await.map_err(|_| left())?;
        Ok(Response::new(ForgetPeerResponse { forgotten }))
    }
}

/// What a peer has said of itself, checked.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) peer: PeerId,
    /// The connection's number, so that what arrives late is recognised.
    pub(crate) epoch: u64,
    pub(crate) announcements: Vec<Announcement>,
    pub(crate) torrents: Vec<HeldTorrent>,
    pub(crate) wanted: Vec<WantedSource>,
    pub(crate) missed: Vec<PeerId>,
}

/// Follows one peer's descriptions while it is connected.
pub(crate) struct Follower {
    pub(crate) peer: PeerId,
    pub(crate) epoch: u64,
    pub(crate) links: Links,
    pub(crate) keys: Keys,
    pub(crate) metrics: Metrics,
    pub(crate) heard: mpsc::Sender<Described>,
    /// One warning a connection is enough.
    pub(crate) warned: bool,
}

impl Follower {
    /// Runs until it is aborted or the node ends.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        while !self.heard.is_closed() {
            match self.follow(&mut failures).await {
                Ok(()) => tracing::debug!(peer = %self.peer, "peer ended its description"),
                Err(error) => tracing::debug!(peer = %self.peer, %error, "peer does not describe itself"),
            }
            failures += 1;
            sleep(backoff(failures)).await;
        }
    }

    async fn follow(&mut self, failures: &mut u32) -> Result<(), FollowError> {
        let channel = self.links.channel(self.peer).await?;
        let largest = (self.keys.total_shards() as usize + 1) * (MAX_ANNOUNCEMENT_BYTES + 16)
            + MAX_HELD_TORRENTS * MAX_TORRENT_BYTES
            + MAX_WANTED_SOURCES * MAX_WANTED_BYTES
            + MAX_TOLD * MAX_PEER_BYTES;
        let mut client = PeerServiceClient::new(channel).max_decoding_message_size(largest);
        let call = timeout(ANSWER_WITHIN, client.describe(DescribeRequest {}));
        let mut descriptions = call.await.map_err(|_| FollowError::Silent)??.into_inner();
        while let Some(description) = descriptions.message().await? {
            *failures = 0;
            let announcements = self.announcements(&description.announcements);
            let torrents = self.torrents(description.torrents);
            let wanted = self.wanted(description.wanted_sources);
            let missed = missed(&description.lost_peers);
            let heard =
                Described { peer: self.peer, epoch: self.epoch, announcements, torrents, wanted, missed };
            if self.heard.send(heard).await.is_err() {
                break;
            }
            sleep(HEAR_EVERY).await;
        }
        Ok(())
    }

    /// The announcements that may be believed; the others are counted.
    fn announcements(&mut self, told: &[Bytes]) -> Vec<Announcement> {
        let mut shards = BTreeSet::new();
        let mut believed = vec![];
        for value in told {
            match self.read(value) {
                Ok(told) if shards.insert(told.shard_id) => believed.push(told),
                Ok(told) => self.refuse(&Refused::Twice(told.shard_id.0)),
                Err(refused) => self.refuse(&refused),
            }
        }
        believed
    }

    /// The torrents that may be believed, as the peer's own word; the others are counted.
    fn torrents(&mut self, told: Vec<wire::HeldTorrent>) -> Vec<HeldTorrent> {
        if told.len() > MAX_HELD_TORRENTS {
            self.refuse(&Refused::TooMany);
        }
        let mut known = BTreeSet::new();
        let mut believed = vec![];
        for torrent in told.into_iter().take(MAX_HELD_TORRENTS) {
            match HeldTorrent::try_from(torrent) {
                Ok(torrent) if known.insert(torrent.info_hash) => believed.push(torrent),
                Ok(torrent) => self.refuse(&Refused::TorrentTwice(torrent.info_hash)),
                Err(error) => self.refuse(&Refused::Torrent(error)),
            }
        }
        believed
    }

    /// The sources that the peer may want; the others are counted.
    fn wanted(&mut self, told: Vec<wire::WantedSource>) -> Vec<WantedSource> {
        if told.len() > MAX_WANTED_SOURCES {
            self.refuse(&Refused::TooMany);
        }
        let mut believed: Vec<WantedSource> = vec![];
        for wanted in told.into_iter().take(MAX_WANTED_SOURCES) {
            match WantedSource::try_from(wanted) {
                Ok(wanted) if believed.iter().all(|known| known.source != wanted.source) => {
                    believed.push(wanted)
                }
                Ok(wanted) => self.refuse(&Refused::SourceTwice(wanted.source)),
                Err(error) => self.refuse(&Refused::Source(error)),
            }
        }
        believed
    }

    fn read(&self, value: &[u8]) -> Result<Announcement, Refused> {
        let told = signed::verify(self.keys.cluster(), self.keys.total_shards(), value)?;
        if told.peer_id == peer::node_id(&self.peer) { Ok(told) } else { Err(Refused::ForeignPeer) }
    }

    fn refuse(&mut self, refused: &Refused) {
        self.metrics.refused(refused);
        if let Refused::TotalShards(theirs) = refused
            && !std::mem::replace(&mut self.warned, true)
        {
            let ours = self.keys.total_shards();
            tracing::warn!(peer = %self.peer, theirs, ours, "peer cuts the model differently, check --total-shards");
        } else {
            tracing::debug!(peer = %self.peer, %refused, "description refused");
        }
    }
}

/// The peers that are missed. Who is none is left out: it leads to nothing but a question to a peer.
fn missed(told: &[String]) -> Vec<PeerId> {
    told.iter().take(MAX_TOLD).filter_map(|text| text.parse().ok()).collect()
}

#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Status(#[from] Status),
    #[error("no answer")]
    Silent,
}
