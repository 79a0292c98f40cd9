//! Keeps one process going: starts it, starts it again when it dies, ends it when told to.

use std::time::{Duration, Instant};

use swarm_process::address_file::Addresses;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::sleep,
};

use super::{plan::ProcessSpec, process::Process};

/// The first restart comes soon: a crash that is over should not be noticed.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A process that ends at once is started again at most this often.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After living this long, a death counts as the first again.
const LIVED_WELL: Duration = Duration::from_secs(30);

/// Something happened to a process.
#[derive(Debug)]
pub(crate) struct ProcessEvent {
    /// Which.
    pub name: String,
    /// What.
    pub change: Change,
}

/// What can happen to a process.
#[derive(Debug)]
pub(crate) enum Change {
    /// Its ports are open.
    Open(Addresses),
    /// It is gone, and is started again after a pause.
    Died {
        /// How it ended.
        reason: String,
        /// The pause.
        restart_in: Duration,
    },
}

/// The process's end: dropping the handle ends it too, only without waiting.
#[derive(Debug)]
pub(crate) struct ProcessHandle {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl ProcessHandle {
    /// Ends the process and waits until it is gone, which takes no longer than its grace.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        // Fails only when the supervisor panicked, and then its process was ended with it.
        let _ = self.task.await;
    }
}

/// Owns one process over all its lives.
#[derive(Debug)]
pub(crate) struct Supervisor {
    spec: ProcessSpec,
    events: mpsc::Sender<ProcessEvent>,
    pause: Duration,
}

impl Supervisor {
    /// Starts the process. What happens to it goes to `events`.
    pub(crate) fn start(spec: ProcessSpec, events: mpsc::Sender<ProcessEvent>) -> ProcessHandle {
        let supervisor = Self { spec, events, pause: FIRST_PAUSE };
        let (stop, stopped) = oneshot::channel();
        ProcessHandle { stop, task: tokio::spawn(supervisor.run(stopped)) }
    }

    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let mut process = Process::spawn(&self.spec);
            let started = Instant::now();
            tokio::select! {
                () = self.live(&mut process, started) => {}
                _ = &mut stopped => return stop(process).await,
            }
            tokio::select! {
                () = sleep(self.pause) => {}
                _ = &mut stopped => return stop(process).await,
            }
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Returns when the process is gone and that is told.
    async fn live(&mut self, process: &mut std::io::Result<Process>, started: Instant) {
        let reason = match process {
            Ok(process) => self.watch(process).await,
            Err(error) => format!("cannot be started: {error}"),
        };
        if started.elapsed() > LIVED_WELL {
            self.pause = FIRST_PAUSE;
        }
        self.tell(Change::Died { reason, restart_in: self.pause }).await;
    }

    async fn watch(&mut self, process: &mut Process) -> String {
        match process.opened(&self.spec).await {
            Ok(addresses) => {
                self.spec.opened(&addresses);
                self.tell(Change::Open(addresses)).await;
                process.ended().await
            }
            Err(reason) => reason,
        }
    }

    async fn tell(&self, change: Change) {
        // Nobody listens any more while everything is being ended.
        let _ = self.events.send(ProcessEvent { name: self.spec.name.clone(), change }).await;
    }
}

async fn stop(process: std::io::Result<Process>) {
    if let Ok(process) = process {
        process.stop().await;
    }
}
