//! One child process: started so that it cannot outlive us, watched, and ended.

use std::{
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use swarm_process::address_file::Addresses;
use tokio::{
    process::{Child, ChildStdin, Command},
    time::{interval, timeout},
};

use super::plan::ProcessSpec;

/// Variables that would let a node take part elsewhere, or that are for a gateway for others; the flags of a swarm here
/// say all of it, and we ask its gateway ourselves.
const OTHER_SWARMS: [&str; 8] = [
    "LLAMA_SWARM_JOIN",
    "LLAMA_SWARM_JOIN_FILE",
    "LLAMA_SWARM_OPEN_SWARM",
    "LLAMA_SWARM_API_KEYS_FILE",
    "LLAMA_SWARM_METRICS_LISTEN",
    "LLAMA_SWARM_TLS_CERT",
    "LLAMA_SWARM_TLS_KEY",
    "LLAMA_SWARM_CLIENT_CA",
];
/// Opening ports takes milliseconds; a machine where it takes this long is not going to do it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to look for the address file. There is no event for a file that holds on every system.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Services drain within this; what is left is ended without asking.
const STOP_GRACE: Duration = Duration::from_secs(8);
/// A log's end of this size holds the error and what led to it.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 15;

/// A running child. Dropping it ends it without asking.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// The child ends when this is closed: by us, or by the system when we are gone in whatever way.
    stdin: Option<ChildStdin>,
}

impl Process {
    /// Starts this executable again with the process's sub-command. In a process group of its own, so that a terminal's
    /// Ctrl-C reaches only us, who end the children in order.
    ///
    /// # Errors
    /// When the log cannot be opened or the process not be started.
    pub(crate) fn spawn(spec: &ProcessSpec) -> io::Result<Self> {
        match std::fs::remove_file(spec.address_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(spec.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(spec.args())
            .envs(spec.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        // What the user has set for nodes of another swarm.
        for variable in OTHER_SWARMS {
            command.env_remove(variable);
        }
        apart(&mut command);
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin })
    }

    /// Waits until its ports are open.
    ///
    /// # Errors
    /// Says how it failed to do so.
    pub(crate) async fn opened(&mut self, spec: &ProcessSpec) -> Result<Addresses, String> {
        let mut look = interval(LOOK_EVERY);
        let opened = async {
            loop {
                look.tick().await;
                if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                    return Err(describe(status));
                }
                if let Some(addresses) = Addresses::read(&spec.address_file()).map_err(|e| e.to_string())? {
                    return Ok(addresses);
                }
            }
        };
        let too_late = |_| format!("did not open its ports within {} s", OPEN_TIMEOUT.as_secs());
        timeout(OPEN_TIMEOUT, opened).await.map_err(too_late)?
    }

    /// Waits until it ends by itself and says how.
    pub(crate) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => describe(status),
            Err(error) => format!("cannot be watched: {error}"),
        }
    }

    /// Asks it to end, as SIGTERM does, and ends it without asking when it does not.
    pub(crate) async fn stop(mut self) {
        drop(self.stdin.take());
        if timeout(STOP_GRACE, self.child.wait()).await.is_err() {
            // Fails only when the child has ended after all.
            let _ = self.child.kill().await;
        }
    }
}

/// Puts the child in a process group of its own.
#[cfg(unix)]
fn apart(command: &mut Command) {
    command.process_group(0);
}

/// Puts the child in a process group of its own, for which Windows turns Ctrl-C off.
#[cfg(windows)]
fn apart(command: &mut Command) {
    const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
    command.creation_flags(CREATE_NEW_PROCESS_GROUP);
}

fn describe(status: ExitStatus) -> String {
    format!("ended ({status})")
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let read = || {
        let mut file = std::fs::File::open(log)?;
        let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![];
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    let text = match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return format!("(cannot read {}: {error})", log.display()),
    };
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
