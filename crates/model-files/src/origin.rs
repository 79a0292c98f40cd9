//! A hub, as an exchange of pieces sees it.

use model_hub::{HubConfig, HubError, HubFile, HubRanges};
use model_torrent::{Layout, Piece};
use torrent_exchange::{Origin, OriginError, Reading};

/// A file of a hub, as it is at one commit.
#[derive(Debug)]
pub(crate) struct HubOrigin(HubRanges);

impl HubOrigin {
    /// Of a model of one file. Nothing when no hub may be asked.
    pub(crate) fn of(file: &HubFile, layout: &Layout, hub: &HubConfig) -> Option<Self> {
        if layout.files() != 1 {
            return None;
        }
        match HubRanges::new(file, layout.total(), hub) {
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
        self.0.name().to_owned()
    }

    fn read(&self, piece: Piece) -> Reading<'_> {
        Box::pin(async move {
            let range = piece.offset..piece.offset + u64::from(piece.length);
            self.0.read(range).await.map_err(|error| match error {
                HubError::NoNetwork { .. } => OriginError::Unavailable(error.to_string()),
                error => OriginError::Useless(error.to_string()),
            })
        })
    }
}
