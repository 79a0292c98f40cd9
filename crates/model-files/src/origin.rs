//! A hub, as an exchange of pieces sees it.

use model_hub::{HubConfig, HubError, HubFile, HubRanges};
use model_torrent::{Layout, Piece};
use torrent_exchange::{Origin, OriginError, Reading};

/// The files of a model on a hub, as they are at one commit, in order.
#[derive(Debug)]
pub(crate) struct HubOrigin(Vec<HubRanges>);

impl HubOrigin {
    /// Of the model that has this file. Nothing when no hub may be asked.
    pub(crate) fn of(file: &HubFile, layout: &Layout, hub: &HubConfig) -> Option<Self> {
        let Some(files) = file.several(layout.files()) else {
            tracing::warn!(%file, "the model is in more files than the hub's name says: it comes from peers alone");
            return None;
        };
        let ranges = files.iter().zip(layout.lengths()).map(|(file, bytes)| HubRanges::new(file, bytes, hub));
        match ranges.collect() {
            Ok(ranges) => Some(Self(ranges)),
            Err(HubError::Offline { .. }) => None,
            Err(error) => {
                tracing::warn!(%error, "the model comes from peers alone");
                None
            }
        }
    }
}

impl Origin for HubOrigin {
    fn name(&self) -> String {
        self.0.first().map(|file| file.name().to_owned()).unwrap_or_default()
    }

    fn read(&self, piece: Piece) -> Reading<'_> {
        Box::pin(async move {
            let range = piece.offset..piece.offset + u64::from(piece.length);
            let file =
                self.0.get(piece.file).ok_or_else(|| OriginError::Useless("it has no such file".into()))?;
            file.read(range).await.map_err(|error| match error {
                HubError::NoNetwork { .. } => OriginError::Unavailable(error.to_string()),
                error => OriginError::Useless(error.to_string()),
            })
        })
    }
}
