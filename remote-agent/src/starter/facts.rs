//! What a node is and offers.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vo_wire::link::Marker;
use vo_wire::node::{Shares, StarterFacts};

use super::Settings;
use crate::launch::Launch;

/// Looks at the node. `time_left_ms` and `scratch_bytes` change; the rest is said once.
pub(super) fn collect(settings: &Settings) -> StarterFacts {
    let uname = uname();
    StarterFacts {
        proxy: settings.launch.proxy,
        node_index: settings.node_index,
        batch_id: settings.batch_id.clone(),
        restarts: settings.restarts,
        host: uname.nodename,
        cpus: settings.cpus.unwrap_or(settings.launch.cpus).max(1),
        memory_mb: memory_mb(&settings.launch),
        gpus: gpus(),
        scratch_bytes: free_bytes(&settings.scratch.0),
        time_left_ms: None,
        shares: shares(&settings.launch.marker),
        arch: uname.machine,
        system: system().unwrap_or(uname.system),
        pid: std::process::id(),
    }
}

struct Uname {
    nodename: String,
    machine: String,
    /// Kernel and its release.
    system: String,
}

fn uname() -> Uname {
    // SAFETY: zeros are a valid utsname, and uname gets a pointer to one of ours.
    let raw = unsafe {
        let mut raw: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut raw);
        raw
    };
    let text = |field: &[libc::c_char]| {
        let bytes: Vec<u8> = field.iter().map(|c| c.to_ne_bytes()[0]).take_while(|c| *c != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Uname {
        nodename: text(&raw.nodename),
        machine: text(&raw.machine),
        system: format!("{} {}", text(&raw.sysname), text(&raw.release)),
    }
}

fn system() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// The least of what was asked for, what the control group allows, and what there is; 0 if none is known.
fn memory_mb(launch: &Launch) -> u64 {
    let total = || {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        kib.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib >> 10)
    };
    let asked = launch.memory_mb.filter(|mb| *mb > 0).map(u64::from);
    [total(), cgroup_mb(), asked].into_iter().flatten().min().unwrap_or(0)
}

/// The least limit among this process's control groups (cgroups(7)).
fn cgroup_mb() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        for group in Path::new(path).ancestors() {
            let group = group.strip_prefix("/").unwrap_or(group);
            let limit = fs::read_to_string(Path::new(root).join(group).join(file));
            // `max` in version 2, a huge number in version 1, is none.
            if let Some(bytes) = limit.ok().and_then(|text| text.trim().parse::<u64>().ok()) {
                least = Some(least.map_or(bytes, |least| least.min(bytes)));
            }
        }
    }
    least.map(|bytes| bytes >> 20)
}

/// GPUs that the batch system gave; where it says nothing, those that there are.
fn gpus() -> u32 {
    let listed = |name: &str| {
        let list = env::var(name).ok()?;
        let given = list.split(',').map(str::trim).filter(|gpu| !matches!(*gpu, "" | "-1" | "NoDevFiles"));
        u32::try_from(given.count()).ok()
    };
    let present = || {
        let devices = fs::read_dir("/dev").into_iter().flatten().flatten();
        let is_gpu = |name: &str| {
            name.strip_prefix("nvidia").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        u32::try_from(devices.filter(|d| d.file_name().to_str().is_some_and(is_gpu)).count()).unwrap_or(0)
    };
    listed("CUDA_VISIBLE_DEVICES").or_else(|| listed("SLURM_JOB_GPUS")).unwrap_or_else(present)
}

/// Free bytes of the file system of the nearest directory above `path` that is there.
pub(super) fn free_bytes(path: &Path) -> u64 {
    let stat = path.ancestors().find_map(|path| nix::sys::statvfs::statvfs(path).ok());
    stat.map_or(0, |stat| stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// Compares the node with the workstation; see [`Marker`].
fn shares(marker: &Marker) -> Shares {
    if is_workstation(&marker.host) {
        Shares::Everything
    } else if marker_device(marker).is_some() {
        Shares::MarkerFs
    } else {
        Shares::Nothing
    }
}

/// `host` names a boot id and a mount namespace; does it name both of ours?
fn is_workstation(host: &str) -> bool {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::metadata("/proc/self/ns/mnt").map(|meta| meta.ino().to_string()).unwrap_or_default();
    let says = |what: &str| {
        !what.is_empty() && host.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == what)
    };
    says(boot.trim()) && says(&namespace)
}

/// The device number of the marker's file system, if the marker is what it should be.
pub(super) fn marker_device(marker: &Marker) -> Option<u64> {
    let path = super::jobs::path(&marker.path);
    let content = fs::read(path).ok()?;
    (!marker.content.is_empty() && content == marker.content.as_bytes()).then_some(())?;
    Some(fs::metadata(path).ok()?.dev())
}
