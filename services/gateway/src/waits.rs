//! What a request waits for before it begins, from whoever knows it to whoever could tell its client. It goes with the
//! request's task, so that nothing between the two has to hand it on.

use tokio::sync::watch;

tokio::task_local! {
    static TOLD: watch::Sender<Waits>;
}

/// What is known of a request's waiting.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Waits {
    /// Its answer is a stream of events, so its client can be told before it begins.
    pub(crate) streams: bool,
    /// What it waits for now, for people.
    pub(crate) reason: Option<String>,
}

/// Works on a request; what it waits for is told there.
pub(crate) async fn told<T>(listener: watch::Sender<Waits>, work: impl Future<Output = T>) -> T {
    TOLD.scope(listener, work).await
}

/// The request that is worked on will be answered by a stream of events.
pub(crate) fn streams() {
    tell(|waits| waits.streams = true);
}

/// The request that is worked on waits for this.
pub(crate) fn for_this(reason: impl Into<String>) {
    let reason = Some(reason.into());
    tell(|waits| waits.reason = reason);
}

/// It waits no more.
pub(crate) fn over() {
    tell(|waits| waits.reason = None);
}

fn tell(change: impl FnOnce(&mut Waits)) {
    // Nobody may want to know.
    let _ = TOLD.try_with(|told| {
        told.send_if_modified(|waits| {
            let before = waits.clone();
            change(waits);
            before != *waits
        })
    });
}
