//! The process itself, under the names that Prometheus' own clients give
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>), and the build that it is of.
//!
//! Taken from `/proc` when they are asked for; on other systems than Linux they are not there.

use std::{env::consts, fmt, fs, sync::LazyLock};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::ConstCounter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};

/// Linux tells times of processes in hundredths of a second, whatever its own clock does.
const TICKS: f64 = 100.0;

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Build {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
}

/// Which build the process is of.
pub(super) fn show_build(registry: &mut Registry) {
    let build = Family::<Build, Gauge>::default();
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), consts::OS, consts::ARCH);
    build.get_or_create(&Build { version, os, arch }).set(1);
    registry.register("build_info", "1; its labels say which build runs", build);
}

/// What the process takes, in a registry that puts nothing before its names.
pub(super) fn show(registry: &mut Registry) {
    if cfg!(target_os = "linux") {
        registry.register_collector(Box::new(ProcessMetrics));
    }
}

#[derive(Debug)]
struct ProcessMetrics;

/// What Linux tells of this process.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Taken {
    /// User and system time.
    cpu_seconds: f64,
    /// Seconds after the machine's start.
    started: f64,
    virtual_bytes: u64,
}

impl Taken {
    /// Reads `/proc/self/stat` (proc_pid_stat(5)). The name of the program stands in brackets and may have any letters.
    fn read(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
        Some(Self {
            cpu_seconds: (number(11)? + number(12)?) as f64 / TICKS,
            started: number(19)? as f64 / TICKS,
            virtual_bytes: number(20)?,
        })
    }
}

/// When the machine started, in seconds since the Unix epoch.
static MACHINE_STARTED: LazyLock<Option<f64>> = LazyLock::new(|| {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
});

/// Bytes of `VmRSS` in `/proc/self/status`: in pages, as in `stat`, they would need the size of those.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit of open files in `/proc/self/limits`; nothing when there is none.
fn may_open(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: Option<f64>| match value {
            Some(value) => ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?),
            None => Ok(()),
        };
        let read = |path: &str| fs::read_to_string(path).ok();
        let taken = read("/proc/self/stat").as_deref().and_then(Taken::read);
        let resident = read("/proc/self/status").as_deref().and_then(resident);
        let limit = read("/proc/self/limits").as_deref().and_then(may_open);
        // One of them is the folder that is read.
        let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1));
        let bytes = "process_resident_memory_bytes";
        gauge(bytes, "Resident memory size in bytes.", resident.map(|bytes| bytes as f64))?;
        let bytes = "process_virtual_memory_bytes";
        gauge(bytes, "Virtual memory size in bytes.", taken.map(|taken| taken.virtual_bytes as f64))?;
        gauge("process_open_fds", "Number of open file descriptors.", open.map(|open| open as f64))?;
        gauge("process_max_fds", "Maximum number of open file descriptors.", limit)?;
        let started = taken.zip(*MACHINE_STARTED).map(|(taken, machine)| machine + taken.started);
        let help = "Start time of the process since unix epoch in seconds.";
        gauge("process_start_time_seconds", help, started)?;
        let Some(taken) = taken else { return Ok(()) };
        let help = "Total user and system CPU time spent in seconds.";
        let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(taken.cpu_seconds).encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn what_linux_tells_of_a_process_is_read_whatever_its_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 8 0 12345 1048576 512 9999";
        let taken = Taken { cpu_seconds: 3.0, started: 123.45, virtual_bytes: 1 << 20 };
        assert_eq!(Taken::read(stat), Some(taken));
        assert_eq!(Taken::read("7 (a) S 1"), None);
        let limits = "Max processes   9    9   processes\nMax open files   1024    524288   files\n";
        assert_eq!(may_open(limits), Some(1024.0));
        assert_eq!(resident("VmPeak:\t 9 kB\nVmRSS:\t   12 kB\n"), Some(12 << 10));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_is_told_under_the_names_that_all_know() {
        let metrics = Registry::default().encode();
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok())
                .unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let age = now.as_secs_f64() - value("process_start_time_seconds");
        assert!((-2.0..86_400.0).contains(&age), "{age}");
        let build = format!("llama_swarm_build_info{{version=\"{}\"", env!("CARGO_PKG_VERSION"));
        assert!(metrics.lines().any(|line| line.starts_with(&build) && line.ends_with(" 1")), "{metrics}");
    }
}
