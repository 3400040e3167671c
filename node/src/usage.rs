//! What this process has used.

use std::{fs, time::Duration};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

/// Processor time of all threads so far; none where the system does not say.
pub(crate) fn cpu() -> Option<Duration> {
    let pid = Pid::from_u32(std::process::id());
    let mut system = System::new();
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[pid]),
        false,
        ProcessRefreshKind::nothing().with_cpu().without_tasks(),
    );
    system.process(pid).map(|process| Duration::from_millis(process.accumulated_cpu_time()))
}

/// The most main memory that has been resident at once, in bytes; none where the system does not say.
pub(crate) fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1_024)
}
