//! How much memory this machine has to give.

/// What Linux says is available, within the container's limit; absent elsewhere.
pub(crate) fn available() -> Option<u64> {
    let machine = available_of_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let number = |file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max").zip(number("/sys/fs/cgroup/memory.current"));
    Some(limit.map_or(machine, |(limit, used)| machine.min(limit.saturating_sub(used))))
}

fn available_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_what_the_system_prints() {
        assert_eq!(available_of_meminfo("MemTotal: 10 kB\nMemAvailable:   7 kB\n"), Some(7 * 1024));
        assert_eq!(available_of_meminfo("MemTotal: 10 kB\n"), None);
    }
}
