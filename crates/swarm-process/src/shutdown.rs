//! The end of a process by signal.

/// Resolves at the first SIGTERM or SIGINT (Ctrl-C elsewhere than on Unix).
///
/// # Panics
/// When the process may not listen for signals, which no supported system forbids.
pub async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("a process may listen for SIGTERM");
        let mut interrupt = signal(SignalKind::interrupt()).expect("a process may listen for SIGINT");
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM received, shutting down"),
            _ = interrupt.recv() => tracing::info!("SIGINT received, shutting down"),
        }
    }
    #[cfg(not(unix))]
    {
        tokio::signal::ctrl_c().await.expect("a process may listen for Ctrl-C");
        tracing::info!("Ctrl-C received, shutting down");
    }
}
