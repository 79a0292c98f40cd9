//! A peer that is admitted, for as long as it is.

use tokio::task::AbortHandle;

/// What this node keeps up with an admitted peer.
pub(super) struct Member {
    /// Tells this time of being a member from the ones before.
    pub(super) epoch: u64,
    pub(super) follower: AbortHandle,
}

impl Drop for Member {
    /// Who is no member any more is followed no more.
    fn drop(&mut self) {
        self.follower.abort();
    }
}
