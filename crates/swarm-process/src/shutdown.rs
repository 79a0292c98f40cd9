//! The end of a process by signal.

/// Resolves at the first SIGTERM or SIGINT; on Windows at the first Ctrl-C or Ctrl-Break, or when the console is closed
/// or the system goes down. After the last two Windows ends the process itself some seconds later.
///
/// # Panics
/// When the process may not listen for signals, which no supported system forbids.
pub async fn signal() {
    let signal = first().await;
    tracing::info!("{signal} received, shutting down");
}

#[cfg(unix)]
async fn first() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("a process may listen for SIGTERM");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a process may listen for SIGINT");
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(windows)]
async fn first() -> &'static str {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown};
    let mut interrupt = ctrl_c().expect("a process may listen for Ctrl-C");
    let mut terminate = ctrl_break().expect("a process may listen for Ctrl-Break");
    let mut closed = ctrl_close().expect("a process may listen for its console's end");
    let mut down = ctrl_shutdown().expect("a process may listen for the system's end");
    tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "Ctrl-Break",
        _ = closed.recv() => "the console's end",
        _ = down.recv() => "the system's end",
    }
}
