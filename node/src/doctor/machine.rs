//! Disk, memory, processors.

use super::{Finding, Patient, model};
use crate::{device::DeviceChoice, events, plan};
use heterotune_protocol::mixture::Layout;
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::Path,
};

const MB: u64 = 1_000_000;

/// Below this much free disk a node does not begin.
const DISK_MIN: u64 = 64 * MB;

/// What is written to see whether that works.
const PROBE_BYTES: usize = 64 * 1024;

/// Whether the state folder can be written, and has room for the event logs and the last mixtures.
pub(super) fn disk(patient: &Patient) -> Finding {
    let mend = "free some space, or move the state folder (--state) to another disk";
    if let Err(error) = try_to_write(&patient.state) {
        let cause = format!("{} cannot be written: {error}", patient.state.display());
        return Finding::error("disk", cause, if error.kind() == ErrorKind::StorageFull { mend } else { OWNER });
    }
    let Some(free) = free_disk(&patient.state) else {
        return Finding::skipped("disk", "the system does not say how much is free");
    };
    let values = patient.charter.as_ref().map_or(0, |charter| Layout::new(charter).values() as u64);
    // 17 snapshots and the ledger's states.
    let need = 2 * events::BYTES_MAX + DISK_MIN + 32 * 8 * values;
    let cause =
        format!("{} MB are free where {} is, and the node needs {}", free / MB, patient.state.display(), need / MB);
    match free {
        0..DISK_MIN => Finding::error("disk", cause, mend),
        _ if free < need => Finding::warning("disk", cause, mend),
        _ => Finding::ok("disk", cause),
    }
}

const OWNER: &str = "make it writable for the user that runs the node (chown, chmod, mount), or choose another --state";

/// Writes a file as large as a small ledger, and removes it. A folder that is not there yet has nothing to be written in.
fn try_to_write(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[0; PROBE_BYTES])?;
        file.sync_all()
    });
    // One that could not be made is not there to be removed.
    let _ = fs::remove_file(&path);
    written
}

/// Free bytes of the disk that a folder, or the folder above it that exists, is on.
fn free_disk(folder: &Path) -> Option<u64> {
    let absolute = std::path::absolute(folder).ok()?;
    let folder = absolute.ancestors().find_map(|folder| fs::canonicalize(folder).ok())?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holds = disks.iter().filter(|disk| folder.starts_with(disk.mount_point()));
    holds.max_by_key(|disk| disk.mount_point().components().count()).map(sysinfo::Disk::available_space)
}

/// Memory, against what the backbone needs.
pub(super) fn memory(patient: &Patient) -> Finding {
    let Some((total, free)) = plan::memory() else {
        return Finding::skipped("memory", "the system does not say how much there is");
    };
    if let Some(DeviceChoice::Cuda(_)) = patient.config.device {
        let cause =
            format!("{} MB are free; the backbone is kept in the GPU's memory, which is not looked at", free / MB);
        return Finding::skipped("memory", cause);
    }
    let Some(need) = model::need(patient) else {
        let cause = format!("{} MB are free; what the backbone needs is not known before it is here", free / MB);
        return Finding::skipped("memory", cause);
    };
    let cause = format!("{} MB are free of {}, and the node needs about {}", free / MB, total / MB, need / MB);
    let mend = "--checkpoint, --precision q8 or q4, --layers, a smaller --batch or --length, or a smaller backbone";
    match patient.running {
        // What is needed is taken already.
        Some(_) => Finding::ok("memory", format!("the node runs; {} MB are free of {}", free / MB, total / MB)),
        None if need > total => Finding::error("memory", cause, mend),
        None if need > free => Finding::warning("memory", cause, mend),
        None => Finding::ok("memory", cause),
    }
}

/// What computes.
pub(super) fn device(patient: &Patient) -> Finding {
    let choice = patient.config.device.unwrap_or_default();
    match choice.open() {
        Err(error) => return Finding::error("device", error.to_string(), "--device cpu, or another build or GPU"),
        Ok(device) if !device.is_cpu() => return Finding::ok("device", format!("a GPU, by device {choice}")),
        Ok(_) => (),
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = patient.config.threads.unwrap_or(cores);
    let cause = format!("CPU, {threads} threads on {cores} cores");
    if threads > cores {
        return Finding::warning("device", cause, "fewer --threads, or none: they would wait for each other");
    }
    Finding::ok("device", cause)
}
