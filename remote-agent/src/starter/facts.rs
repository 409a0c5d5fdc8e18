//! What a node is and offers.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use vo_wire::link::Marker;
use vo_wire::node::{Gpu, Shares, StarterFacts};

use super::Settings;
use super::jobs::{APPTAINER, PELICAN, PODMAN, installed};
use crate::launch::Launch;

/// Looks at the node. `time_left_ms` and `scratch_bytes` change; the rest is said once.
pub(super) fn collect(settings: &Settings) -> StarterFacts {
    let uname = uname();
    let gpus = gpus();
    StarterFacts {
        proxy: settings.launch.proxy,
        node_index: settings.node_index,
        batch_id: settings.batch_id.clone(),
        restarts: settings.restarts,
        host: uname.nodename,
        cpus: settings.cpus.unwrap_or(settings.launch.cpus).max(1),
        memory_mb: memory_mb(&settings.launch),
        gpus: u32::try_from(gpus.len()).unwrap_or(u32::MAX),
        scratch_bytes: free_bytes(&settings.scratch.0),
        time_left_ms: None,
        shares: shares(&settings.launch.marker),
        arch: uname.machine,
        system: system().unwrap_or(uname.system),
        pid: std::process::id(),
        gpu: gpu(&gpus),
        apptainer: APPTAINER.into_iter().any(installed),
        podman: installed(PODMAN),
        curl: installed("curl"),
        pelican: PELICAN.into_iter().any(installed),
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

/// What the GPUs are called that the batch system gave; where it says nothing, those that there are.
pub(super) fn gpus() -> Vec<String> {
    let listed = |name: &str| {
        let list = env::var(name).ok()?;
        let given = list.split(',').map(str::trim).filter(|gpu| !matches!(*gpu, "" | "-1" | "NoDevFiles"));
        Some(given.map(str::to_owned).collect())
    };
    let present = || {
        let devices = fs::read_dir("/dev").into_iter().flatten().flatten();
        let number = |name: &str| name.strip_prefix("nvidia")?.parse::<u32>().ok();
        let mut found: Vec<u32> = devices.filter_map(|device| number(device.file_name().to_str()?)).collect();
        found.sort_unstable();
        found.iter().map(u32::to_string).collect()
    };
    let names = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURM_JOB_GPUS"];
    names.into_iter().find_map(listed).unwrap_or_else(present)
}

/// What the first of them is like, if NVIDIA's tool tells: nodes have GPUs of one kind.
fn gpu(names: &[String]) -> Option<Gpu> {
    let first = names.first()?;
    // It can hang where a driver is broken.
    let ask = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        let output = command.args(["20", "nvidia-smi"]).args(arguments).stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let told = ask(&["--query-gpu=memory.total,compute_cap,name", "--format=csv,noheader,nounits", "-i", first])?;
    describe(&told, &ask(&["-q", "-i", first]).unwrap_or_default())
}

/// Reads `MEMORY, CAPABILITY, NAME`, and CUDA's version in the long form of what the tool says.
fn describe(told: &str, long: &str) -> Option<Gpu> {
    let mut fields = told.lines().next()?.splitn(3, ',').map(str::trim);
    let (memory_mb, capability, name) = (fields.next()?, fields.next()?, fields.next()?);
    let cuda = long.lines().find_map(|line| line.trim().strip_prefix("CUDA Version"));
    let cuda = cuda.map(|rest| rest.trim_start_matches([' ', ':']).trim()).unwrap_or_default();
    Some(Gpu {
        name: name.to_owned(),
        memory_mb: memory_mb.parse().ok()?,
        capability: tenths(capability).unwrap_or(0),
        cuda: tenths(cuda).unwrap_or(0),
    })
}

/// `8.6` as 86.
fn tenths(version: &str) -> Option<u32> {
    let (major, minor) = version.split_once('.')?;
    let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok().filter(|minor| *minor < 10)?);
    major.checked_mul(10)?.checked_add(minor)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_described_as_the_tool_tells() {
        let long = "==============NVSMI LOG==============\n\nDriver Version                            : 535.104.05\n\
            CUDA Version                              : 12.2\n\nAttached GPUs                             : 1\n";
        let a100 = Gpu { name: "NVIDIA A100-SXM4-40GB, half".into(), memory_mb: 40_960, capability: 80, cuda: 122 };
        assert_eq!(describe("40960, 8.0, NVIDIA A100-SXM4-40GB, half\n", long), Some(a100.clone()));
        assert_eq!(describe("40960, [N/A], A\n", ""), Some(Gpu { name: "A".into(), capability: 0, cuda: 0, ..a100 }));
        for nothing in ["", "No devices were found\n", "[N/A], 8.0, A\n"] {
            assert_eq!(describe(nothing, long), None, "{nothing}");
        }
    }
}
