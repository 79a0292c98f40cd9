//! The allocator of every process, in one place for all of them.
//!
//! The C library's keeps what a storm of requests made it take: docs/decisions/0012-memory-goes-back-to-the-system.md.
//! How soon jemalloc gives memory back is said in `.cargo/config.toml`.

/// It does not build with Microsoft's compiler; Windows' own allocator gives memory back.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
