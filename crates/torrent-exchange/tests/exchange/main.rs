//! Nodes that fetch from each other by the real protocol, over pipes in memory: honest ones, and others.

mod bounds;
mod disks;
mod hostile;
mod late;
mod many;
mod net;
mod origin;
mod raw;
mod unreliable;
mod whole;

use std::time::Duration;

use tokio::time::timeout;

/// Long enough for anything that should come at all.
const SOON: Duration = Duration::from_secs(120);

/// What should come.
async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(SOON, event).await.expect("it comes")
}
