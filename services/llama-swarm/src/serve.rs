//! One service as a sub-command: the same as its own binary, and when it comes to its end.

use std::{future::Future, io::Read};

use clap::Args;
use swarm_process::shutdown;
use tokio::sync::oneshot;

/// A service's own flags, and those that this command adds.
#[derive(Args, Debug)]
pub(crate) struct Node<C: Args> {
    #[command(flatten)]
    pub(crate) service: C,

    #[command(flatten)]
    pub(crate) lifetime: Lifetime,
}

/// What else than a signal ends a service.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// End when standard input does. `up` holds the other end, so that its children never outlive it.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

impl Lifetime {
    /// Resolves when the service must end.
    pub(crate) fn over(self) -> impl Future<Output = ()> + Send + 'static {
        let parent_gone = self.exit_with_stdin.then(end_of_stdin);
        async move {
            let Some(parent_gone) = parent_gone else { return shutdown::signal().await };
            tokio::select! {
                () = shutdown::signal() => {}
                _ = parent_gone => tracing::info!("standard input ended, shutting down"),
            }
        }
    }
}

/// Reads on a thread of its own, which ends with the process: a read of the runtime's would keep it from ending.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (ended, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(std::io::stdin().read(&mut ignored), Ok(1..)) {}
        let _ = ended.send(());
    });
    receiver
}
