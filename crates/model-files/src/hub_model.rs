//! A hub's file, as a node of a swarm gets it.
//!
//! One node fetches all of it, since only that tells which model it is; the others then fetch what they need from each
//! other, and from the hub what none of them has. Which commit of a branch the swarm has, whoever was first decides.

use std::{path::Path, sync::Arc, time::Duration};

use model_hub::{HubConfig, HubFile, ModelRef, look_up};
use model_torrent::Store;
use swarm_types::ModelDigest;
use tokio::{task::spawn_blocking, time::timeout};
use torrent_exchange::Fetcher;

use crate::{
    FilesError, LocalModel, Model, Sharing,
    cache::swarm_folder,
    hunt::{Hunt, Way, Wish, gone, yields},
    kept::{self, Kept},
    origin::HubOrigin,
    turns::{Offered, others_want},
};

const OFFLINE: &str = "--offline forbids to fetch it from the hub";
const REFUSED: &str = "this node could not fetch it";
/// A node that could not fetch the file, or may not, lets others try for so long.
const STEPS_BACK_FOR: Duration = Duration::from_secs(60);

impl Sharing {
    /// Gets a hub's file that is not on this machine.
    pub(crate) async fn open_hub(&self, file: &HubFile, hub: &HubConfig) -> Result<Model, FilesError> {
        let file = &pin(file, hub).await?;
        let (net, below) = (&self.fetchers.peers.0, swarm_folder(hub)?);
        let mut only_waits = hub.offline.then_some(OFFLINE);
        loop {
            let (folder, asked) = (below.clone(), file.clone());
            let kept = spawn_blocking(move || kept::find(&folder, &asked)).await?;
            let wish = Wish::of(net, file);
            let hunt = Hunt { net, file, kept, only_waits };
            let way = match only_waits {
                Some(REFUSED) => timeout(STEPS_BACK_FOR, hunt.way(&wish)).await,
                _ => Ok(hunt.way(&wish).await),
            };
            let Ok(way) = way else {
                only_waits = None;
                continue;
            };
            let way = way?;
            let (info_hash, name, source) = match way {
                Way::Offered(Offered { info_hash, name, file }) => (info_hash, name, file),
                Way::Kept(Kept { info_hash, file }) => (info_hash, name_of(&file), file),
                Way::Turn => match self.fetch_whole(file, hub, &wish).await {
                    Ok(Some(local)) => return self.shared(local).await,
                    Ok(None) => continue,
                    Err(error) if others_want(file, &net.wanted().borrow()) => {
                        tracing::error!(%error, "this node cannot fetch the model, it leaves that to others");
                        only_waits = Some(REFUSED);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            drop(wish);
            tracing::info!(model = name, %info_hash, commit = %source, "the model comes from the swarm");
            let Some(fetcher) = self.open_or_lose(info_hash, &below).await? else { continue };
            self.holdings.add(&name, source.to_string().parse().ok(), fetcher.store());
            self.read_from_hub(&fetcher, source, hub).await?;
            return Ok(Model::Swarm(self.header(fetcher, name).await?));
        }
    }

    /// Fetches the whole file. Nothing when another node does.
    async fn fetch_whole(
        &self,
        file: &HubFile,
        hub: &HubConfig,
        wish: &Wish<'_>,
    ) -> Result<Option<LocalModel>, FilesError> {
        tracing::info!(model = %file, "no node has the model: this one fetches all of it");
        wish.fetches();
        let model = ModelRef::Hub(file.clone());
        tokio::select! {
            found = LocalModel::find(&model, hub) => found,
            other = yields(&self.fetchers.peers.0, file) => {
                tracing::info!(node = %other?.node(), "another node fetches the model, this one leaves it to that");
                Ok(None)
            }
        }
    }

    /// Nothing when the torrent is known to nobody any more.
    async fn open_or_lose(
        &self,
        info_hash: ModelDigest,
        below: &Path,
    ) -> Result<Option<Fetcher>, FilesError> {
        let folder = below.join(info_hash.to_string());
        let torrent = spawn_blocking(move || Store::torrent_in(&folder)).await?;
        if torrent.is_some_and(|torrent| torrent.info_hash() == info_hash) {
            return self.open_store(info_hash, below).await.map(Some);
        }
        tokio::select! {
            fetcher = self.open_store(info_hash, below) => fetcher.map(Some),
            gone = gone(&self.fetchers.peers.0, info_hash) => {
                tracing::info!(%info_hash, "nobody holds the model any more");
                gone.map(|()| None)
            }
        }
    }

    async fn read_from_hub(
        &self,
        fetcher: &Fetcher,
        source: HubFile,
        hub: &HubConfig,
    ) -> Result<(), FilesError> {
        if let Some(origin) = HubOrigin::of(&source, fetcher.metainfo().layout(), hub) {
            fetcher.read_from(Arc::new(origin)).await?;
        }
        let folder = fetcher.store().paths().next().and_then(Path::parent).map(Path::to_path_buf);
        if let Some(folder) = folder {
            spawn_blocking(move || kept::note(&folder, &source)).await?;
        }
        Ok(())
    }
}

/// A branch or tag that is named becomes a commit. What is not named is for the swarm to decide.
async fn pin(file: &HubFile, hub: &HubConfig) -> Result<HubFile, FilesError> {
    if file.is_any_revision() || file.commit().is_some() || hub.offline {
        return Ok(file.clone());
    }
    let pinned = look_up(file, hub).await?.file;
    tracing::info!(model = %file, commit = %pinned, "the model's commit");
    Ok(pinned)
}

fn name_of(file: &HubFile) -> String {
    let name = file.path().rsplit('/').next().unwrap_or_default();
    name.trim_end_matches(".gguf").to_owned()
}
