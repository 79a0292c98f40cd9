//! Who is not to be missed: this node when it leaves in order, and lost ones that an operator takes out of service.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use libp2p::PeerId;
use swarm_types::{ForgetError, Forgotten, NodeId};
use tokio::sync::oneshot;

use super::SwarmNet;
use crate::{calls::forget::tell_all, command::Command, peer};

/// For members to answer an operator's wish.
const FORGET_WITHIN: Duration = Duration::from_secs(3);
/// For members to hear that this node leaves: who is that slow misses it afterwards.
const RETIRE_WITHIN: Duration = Duration::from_secs(2);

impl SwarmNet {
    /// Tells all members that this node is about to leave because it was asked to, so that it is not lost to them. To
    /// be called just before [`Self::leave`]. Returns when they have heard it, or after two seconds.
    pub async fn retire(&self) {
        if let Some(me) = peer::peer_id(&self.id) {
            tell_all(&self.links, me, RETIRE_WITHIN).await;
        }
    }

    /// Takes a lost worker out of service: this node and all that are connected forget it. `name` is its peer id, or a
    /// beginning that no other has of those that this node has lost.
    ///
    /// # Errors
    /// When none is meant, or one that is not lost.
    pub async fn forget(&self, name: &str) -> Result<Forgotten, ForgetError> {
        let known = self.status.borrow().lost_worker(name);
        let (worker, peer) = match known {
            // Another node may have lost it: this one may have started since.
            Err(ForgetError::Unknown(_)) => named(name).ok_or_else(|| ForgetError::Unknown(name.into()))?,
            known => known.and_then(|worker| named(worker.as_str()).ok_or(ForgetError::NoName))?,
        };
        let (answer, forgotten) = oneshot::channel();
        let forget = Command::Forget { peer, by: None, answer };
        self.commands.send(forget).await.map_err(|_| ForgetError::Left)?;
        let here = forgotten.await.map_err(|_| ForgetError::Left)?;
        let told = tell_all(&self.links, peer, FORGET_WITHIN).await;
        let nodes =
            u32::from(here) + told.iter().map(|(_, told)| u32::from(*told == Some(true))).sum::<u32>();
        if nodes == 0 {
            return Err(ForgetError::Unknown(name.into()));
        }
        let silent = told.iter().filter(|(_, told)| told.is_none());
        Ok(Forgotten { worker, nodes, silent: silent.map(|(member, _)| peer::node_id(member)).collect() })
    }

    /// [`Self::forget`] for a service that knows nothing of nodes.
    pub fn forgetting(
        &self,
    ) -> impl Fn(String) -> BoxFuture<'static, Result<Forgotten, ForgetError>> + use<> {
        let net = self.clone();
        move |name| {
            let net = net.clone();
            async move { net.forget(&name).await }.boxed()
        }
    }
}

/// The peer whose whole id that is.
fn named(name: &str) -> Option<(NodeId, PeerId)> {
    let worker = name.parse().ok()?;
    let peer = peer::peer_id(&worker)?;
    Some((worker, peer))
}
