//! How much memory this machine has to give to a process.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where Linux shows control groups.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Bytes that Linux says are available, within the limits of the process's control groups; absent elsewhere.
#[must_use]
pub fn available_memory() -> Option<u64> {
    let machine = available_of_meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    Some(
        groups(Path::new(CONTROL_GROUPS), &own)
            .iter()
            .filter_map(|group| room(group))
            .fold(machine, u64::min),
    )
}

fn available_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The folders of a process's control group and of those around it, by its `/proc/self/cgroup`. In a container the root
/// is its own group, and the path may be one that is not there.
fn groups(root: &Path, own: &str) -> Vec<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let below = Path::new(path).ancestors().map(|group| root.join(group));
    // Version 1 has its limits in a tree of their own.
    below.chain([root.join("memory")]).collect()
}

/// What a group's limit leaves. What files in memory take is given back when it is wanted.
fn room(group: &Path) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"))?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let files = ["active_file ", "inactive_file "].map(|key| {
        let value = stat.lines().find_map(|line| line.strip_prefix(key));
        value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
    });
    Some(limit.saturating_sub(used.saturating_sub(files.iter().sum())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_what_the_system_prints() {
        assert_eq!(available_of_meminfo("MemTotal: 10 kB\nMemAvailable:   7 kB\n"), Some(7 * 1024));
        assert_eq!(available_of_meminfo("MemTotal: 10 kB\n"), None);
    }

    #[test]
    fn the_limits_of_all_groups_around_a_process_count() {
        let root = Path::new("/root");
        let paths = |own: &str| {
            let groups = groups(root, own);
            groups
                .iter()
                .map(|group| group.to_string_lossy().trim_end_matches('/').to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(paths("0::/a/b\n"), ["/root/a/b", "/root/a", "/root", "/root/memory"]);
        assert_eq!(paths("12:memory:/docker/x\n0::/\n"), ["/root", "/root/memory"]);
    }

    #[test]
    fn files_in_memory_do_not_fill_a_limit() {
        let group = tempfile::tempdir().expect("a temporary folder");
        let write = |file: &str, text: &str| fs::write(group.path().join(file), text).expect("written");
        assert_eq!(room(group.path()), None);
        write("memory.current", "900\n");
        write("memory.max", "max\n");
        assert_eq!(room(group.path()), None, "there is no limit");
        write("memory.max", "1000\n");
        assert_eq!(room(group.path()), Some(100));
        write("memory.stat", "anon 300\nactive_file 200\ninactive_file 400\n");
        assert_eq!(room(group.path()), Some(700));
        write("memory.current", "1500\n");
        assert_eq!(room(group.path()), Some(100));
    }
}
