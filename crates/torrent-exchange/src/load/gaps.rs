//! What a load does with an origin: it fills gaps. Peers come first; what none of them has, and what they would take
//! long for, is read from the origin, and checked as what peers send.

use std::sync::Arc;

use model_torrent::{PieceIndex, PieceSet, TorrentError};
use tokio::time::Instant;
use tracing::warn;

use super::Load;
use crate::{
    metrics::OriginFailure,
    origin::{Origin, OriginError},
    origin_reads::Read,
    peers::Peers,
};

impl<P: Peers> Load<P> {
    /// There is an origin from now on.
    pub(super) fn on_origin(&mut self, origin: Arc<dyn Origin>) {
        self.origin.begin(origin);
        self.picker.peer_left(&self.origin.id);
        self.fill_from_origin();
    }

    /// Asks the origin for as much as it may be asked for.
    pub(super) fn fill_from_origin(&mut self) {
        if !self.origin.is_there() {
            return;
        }
        let (gaps, id) = (self.gaps(), self.origin.id.clone());
        self.picker.peer_has(&id, gaps);
        while let Some(piece) = self.picker.next(&id) {
            self.origin.read(piece);
        }
    }

    fn gaps(&self) -> PieceSet {
        let now = Instant::now();
        let missing = self.wanted.without(&self.here);
        let (_, bytes_per_second) = self.links.speed();
        if self.origin.may_help(self.bytes_of(&missing), bytes_per_second, now) {
            missing
        } else if self.origin.may_fill_gaps(now) && self.links.all_told() {
            self.links.told().fold(missing, |missing, (_, has)| missing.without(has))
        } else {
            PieceSet::empty(missing.pieces())
        }
    }

    /// A piece came from the origin, or does not come.
    pub(super) fn on_origin_read(&mut self, read: Read) {
        let Read { piece, result } = read;
        match result {
            Ok((bytes, permit)) => self.write(self.origin.id.clone(), piece, bytes, permit),
            Err(OriginError::Unavailable(error)) => {
                warn!(origin = self.origin.name(), error, "the origin gives no piece now, it is asked later");
                self.metrics.count_origin_failure(OriginFailure::Unavailable);
                self.origin.pause();
                self.picker.peer_left(&self.origin.id);
            }
            Err(OriginError::Useless(error)) => self.give_up_origin(&error, OriginFailure::Useless),
        }
    }

    /// A piece from the origin was checked and written.
    pub(super) fn on_origin_written(&mut self, piece: PieceIndex, result: Result<(), TorrentError>) {
        match result {
            Ok(()) => {
                self.metrics.verified.inc();
                self.origin.gave();
                self.arrived(piece);
                self.fill_from_origin();
            }
            Err(error @ TorrentError::WrongBytes { .. }) => {
                self.metrics.wrong.inc();
                self.give_up_origin(&error.to_string(), OriginFailure::Wrong);
            }
            Err(error) => self.give_up(error),
        }
    }

    fn give_up_origin(&mut self, error: &str, cause: OriginFailure) {
        if !self.origin.is_there() {
            return;
        }
        let origin = self.origin.name();
        warn!(
            origin,
            error, "the origin is not asked again: its file is not this model, or it gives no parts"
        );
        self.metrics.count_origin_failure(cause);
        self.origin.give_up();
        self.picker.peer_left(&self.origin.id);
        self.fill_all();
    }
}
