//! How many files and sockets a process may have open.

/// Raises what the process is given to what it may have. Each connection takes a descriptor, and the usual soft limit
/// of 1024 is there for programs that call `select`, which none of ours does.
pub fn raise_limit() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => tracing::debug!(limit, "open files and sockets"),
        Err(error) => tracing::debug!(%error, "the limit of open files stays as it is"),
    }
}
