//! Gives model files to other nodes, and begins to fetch from them.

use std::{path::Path, sync::Arc, time::Duration};

use futures::StreamExt;
use model_hub::{HubConfig, HubError};
use model_torrent::Store;
use prometheus_client::registry::Registry;
use swarm_net::{PeerListener, SwarmNet};
use swarm_types::ModelDigest;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::task::AbortOnDropHandle;
use torrent_exchange::{Fetcher, Fetchers, Metrics, Seeder, Shelf, Shelved, Wanted};
use tracing::Instrument;

use crate::{
    FilesError, LocalModel, SharingConfig, SwarmModel,
    cache::{folder_name, swarm_folder},
    held::Holdings,
    peers::SwarmPeers,
    swarm_model::{Begun, wanted},
    traced::Traced,
};

/// What changes is told as often.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Processes of one machine that keep their own copy of one torrent's pieces in one cache.
const MOST_COPIES: u32 = 64;

/// What a node holds of models, given to all who ask. Cheap to clone; ends when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Sharing {
    pub(crate) fetchers: Fetchers<SwarmPeers>,
    seeder: Seeder,
    pub(crate) holdings: Holdings,
    _tasks: Arc<[AbortOnDropHandle<()>; 2]>,
}

/// A whole model that is given to others until this is dropped.
#[derive(Debug)]
#[must_use = "nothing is given to others once it is dropped"]
pub struct Shared {
    _shelved: Shelved,
    _store: Arc<Store>,
}

impl Sharing {
    /// Serves the streams that peers open for pieces. There is one for each node.
    ///
    /// # Errors
    /// When the node has left, or somebody else serves them.
    pub fn start(net: &SwarmNet, config: &SharingConfig) -> Result<Self, FilesError> {
        let (shelf, metrics, holdings) = (Shelf::default(), Metrics::default(), Holdings::default());
        let streams = net.torrent_streams().ok_or(swarm_net::NetError::Left)?;
        let seeder = Seeder::new(shelf.clone(), &config.limits(), metrics.clone());
        let (serving, telling) = (serve(streams, seeder.clone()), tell(net.clone(), holdings.clone()));
        let tasks = [tokio::spawn(serving), tokio::spawn(telling)].map(AbortOnDropHandle::new);
        let fetchers = Fetchers::new(SwarmPeers(net.clone()), shelf, metrics);
        Ok(Self { fetchers, seeder, holdings, _tasks: Arc::new(tasks) })
    }

    /// Adds its counters.
    pub fn metrics(&self, registry: &mut Registry) {
        self.fetchers.metrics.register(registry);
    }

    /// Gives less to others as long as this says that there is something better to do: answers must not suffer. Asked
    /// often, so it must be cheap. Who is the first to call this is heard.
    pub fn give_way_while(&self, works: impl Fn() -> bool + Send + Sync + 'static) {
        self.seeder.give_way_while(works);
    }

    /// Gives a whole model to others. `name` is shown to people.
    ///
    /// # Errors
    /// When the file is not what it was.
    pub fn share(&self, name: &str, model: &LocalModel) -> Result<Shared, FilesError> {
        let store = Arc::new(Store::whole(model.metainfo.clone(), &model.paths)?);
        self.holdings.add(name, model.source.clone(), &store);
        Ok(Shared { _shelved: self.fetchers.shelf.put(store.clone()), _store: store })
    }

    /// Begins with a model that other nodes hold: this one, or the one that the swarm serves. Waits until there is one,
    /// and until its header is here.
    ///
    /// # Errors
    /// When it cannot be kept on this machine, or is no model.
    pub async fn fetch(&self, model: Option<ModelDigest>, hub: &HubConfig) -> Result<SwarmModel, FilesError> {
        let net = &self.fetchers.peers.0;
        let (info_hash, name) = wanted(net, model).await?;
        tracing::info!(model = name, %info_hash, "the model comes from the swarm");
        let fetcher = self.open_store(info_hash, &swarm_folder(hub)?).await?;
        self.holdings.add(&name, None, fetcher.store());
        self.header(fetcher, name).await
    }

    /// Fetches the header of a model.
    pub(crate) async fn header(&self, fetcher: Fetcher, name: String) -> Result<SwarmModel, FilesError> {
        let metrics = self.fetchers.metrics.clone();
        let traced = Traced::begin(&name, fetcher.metainfo().info_hash(), &metrics);
        let begun = Begun { fetcher, name, metrics };
        let model = SwarmModel::begin(begun, &traced).instrument(traced.span().clone()).await;
        let progress = model.as_ref().map(|model| *model.progress().borrow()).unwrap_or_default();
        traced.ended(&model, progress);
        model
    }

    /// The first folder for it that no other process uses.
    pub(crate) async fn open_store(
        &self,
        info_hash: ModelDigest,
        below: &Path,
    ) -> Result<Fetcher, FilesError> {
        let mut copy = 0;
        loop {
            let folder = below.join(folder_name(info_hash, copy));
            let opened =
                self.fetchers.open(Wanted { info_hash, folder: folder.clone(), metainfo: None }).await;
            match opened {
                Err(error) if is_busy(&error) && copy < MOST_COPIES => copy += 1,
                Err(error) => return Err(error.into()),
                Ok(fetcher) => return Ok(fetcher),
            }
        }
    }
}

fn is_busy(error: &torrent_exchange::ExchangeError) -> bool {
    use model_torrent::TorrentError::Busy;
    matches!(error, torrent_exchange::ExchangeError::Torrent(error) if matches!(**error, Busy { .. }))
}

impl From<tokio::task::JoinError> for FilesError {
    fn from(error: tokio::task::JoinError) -> Self {
        HubError::Internal(error.to_string()).into()
    }
}

async fn serve(mut streams: PeerListener, seeder: Seeder) {
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            stream = streams.next() => {
                let Some(Ok(stream)) = stream else { return };
                let seeder = seeder.clone();
                serving.spawn(async move {
                    let peer = stream.peer().node.clone();
                    if let Err(error) = seeder.serve(stream, &peer).await {
                        tracing::debug!(%peer, %error, "a stream of pieces ended");
                    }
                });
            }
            Some(_) = serving.join_next() => {}
        }
    }
}

async fn tell(net: SwarmNet, holdings: Holdings) {
    let (mut told, mut ticks) = (vec![], interval(TELL_EVERY));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = holdings.added() => {}
        }
        holdings.tell(&net, &mut told);
    }
}
