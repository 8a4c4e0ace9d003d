//! What a job finds: its command, the folders that it may write to, and the configuration that runc reads.
//!
//! Source: OCI Runtime Specification 1.0.2 (config.md, config-linux.md); masked and read-only paths are Docker's.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::{Value, json};

use super::{PATH, Stop, layers::Files, layout::Image, seccomp, tree::Folder};
use crate::Job;

/// Processes and threads of a job.
const PROCESSES_MAX: u64 = 512;
/// Open files of a process: what the kernel gives every process, since no container may have more than this one.
const OPEN_FILES_MAX: u64 = 4096;
/// Processor time beyond what a process can have used when the clock stops it.
const SPARE_S: u64 = 10;
/// A job's root is this user of the machine, whom nobody else is.
pub(super) const OWNER: u32 = 2_000_000_000;
const HOSTNAME: &str = "tribunal";
/// Written by runc or the kernel; no input and no output lies there.
const SYSTEM: [&str; 3] = ["/proc", "/dev", "/sys"];
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A folder that a job may write to.
pub(super) struct Place {
    /// As the job sees it.
    pub(super) path: String,
    /// What the image has there.
    pub(super) image: Folder,
}

/// One job on one image, before any run.
pub(super) struct Plan {
    args: Vec<String>,
    env: BTreeMap<String, String>,
    working_folder: String,
    pub(super) places: Vec<Place>,
    /// Inputs that lie in a place, so that they must be bound over it.
    pub(super) bound: Vec<(String, Arc<[u8]>)>,
}

/// What differs between runs.
pub(super) struct Limits {
    pub(super) memory_bytes: u64,
    /// The CPU that a job is kept on.
    pub(super) cpu: Option<u32>,
    /// CPUs that it may use at a time.
    pub(super) cpus: u64,
    /// When the clock stops it.
    pub(super) wall_s: u64,
}

/// Whether `path` lies in `folder` or is it.
pub(super) fn inside(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether an output is made as a folder before the job runs: its last name has no dot.
pub(super) fn is_folder(output: &str) -> bool {
    !output.rsplit('/').next().unwrap_or_default().contains('.')
}

/// The folder of an output: itself, or where the file will lie.
pub(super) fn folder_of(output: &str) -> &str {
    if is_folder(output) { output } else { output.rsplit_once('/').map_or("", |(folder, _)| folder) }
}

impl Plan {
    /// Puts the job's inputs into the image and takes out of it what the job may write to.
    pub(super) fn new(
        job: &Job,
        inputs: &[Arc<[u8]>],
        image: &Image<'_>,
        tree: &mut Folder,
        files: &mut Files,
    ) -> Result<Self, Stop> {
        let named = job.inputs.iter().map(|input| &input.path).chain(&job.outputs);
        for path in named {
            if SYSTEM.iter().any(|system| inside(path, system)) {
                return Err(Stop::malformed(format!("{path} lies where the system writes")));
            }
        }
        let mut paths = vec!["/dev/shm", "/tmp"];
        for output in &job.outputs {
            match folder_of(output) {
                "" => return Err(Stop::malformed(format!("{output} lies in the root, which is read-only"))),
                folder => paths.push(folder),
            }
        }
        paths.sort_unstable();
        paths.dedup();
        let outermost: Vec<&str> = {
            let within = |path: &&str| paths.iter().any(|other| other != path && inside(path, other));
            paths.iter().copied().filter(|path| !within(path)).collect()
        };
        let mut bound = Vec::new();
        for (input, bytes) in job.inputs.iter().zip(inputs) {
            if outermost.iter().any(|place| inside(&input.path, place)) {
                bound.push((input.path.clone(), bytes.clone()));
            } else {
                let number = files.keep(&mut &bytes[..])?;
                tree.put_file(&input.path, number)?;
            }
        }
        for folder in ["/proc", "/dev", &image.working_folder] {
            tree.job_folder(folder)?;
        }
        let mut places = Vec::new();
        for path in outermost {
            // Nothing of the image shows below /dev.
            let mut place = Folder::default();
            if !inside(path, "/dev") {
                let there = tree.job_folder(path)?;
                place.marks = there.marks;
                place.entries = std::mem::take(&mut there.entries);
            }
            if matches!(path, "/dev/shm" | "/tmp") {
                place.marks.mode = 0o777;
            }
            places.push(Place { path: path.to_owned(), image: place });
        }
        let args = if job.args.is_empty() { image.args.clone() } else { job.args.clone() };
        if args.is_empty() {
            return Err(Stop::unsupported("neither the job nor the image names a program"));
        }
        let mut env: BTreeMap<_, _> =
            [("HOME", "/root"), ("PATH", PATH)].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        env.extend(image.env.clone());
        env.extend(job.env.iter().cloned());
        Ok(Self { args, env, working_folder: image.working_folder.clone(), places, bound })
    }

    /// The configuration of one run. `writable` has a folder for each place, `inputs` a file for each bound input.
    pub(super) fn config(&self, root: &Path, writable: &Path, inputs: &Path, cgroup: &str, limits: &Limits) -> Value {
        let mut mounts = vec![
            json!({ "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] }),
            json!({
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=64k"],
            }),
        ];
        let bind = |path: &str, source: &Path, access: &str| json!({ "destination": path, "type": "bind", "source": source, "options": ["bind", access, "nosuid", "nodev"] });
        for (number, place) in self.places.iter().enumerate() {
            mounts.push(bind(&place.path, &writable.join(number.to_string()), "rw"));
        }
        for (number, (path, _)) in self.bound.iter().enumerate() {
            mounts.push(bind(path, &inputs.join(number.to_string()), "ro"));
        }
        let none: [&str; 0] = [];
        let mut cpu = json!({ "shares": 512, "period": 100_000, "quota": limits.cpus.saturating_mul(100_000) });
        if let Some(number) = limits.cpu {
            cpu["cpus"] = number.to_string().into();
        }
        let ids = json!([{ "containerID": 0, "hostID": OWNER, "size": 1 }]);
        let rlimit = |kind: &str, most: u64| json!({ "type": kind, "hard": most, "soft": most });
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0, "umask": 0o022 },
                "args": self.args,
                "env": self.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
                "cwd": self.working_folder,
                "capabilities": {
                    "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none,
                },
                "rlimits": [
                    rlimit("RLIMIT_NOFILE", OPEN_FILES_MAX),
                    rlimit("RLIMIT_CORE", 0),
                    // Reached only where everybody who would stop the job was killed.
                    rlimit("RLIMIT_CPU", limits.wall_s.saturating_mul(limits.cpus).saturating_add(SPARE_S)),
                ],
                "noNewPrivileges": true,
                // Where the machine has no memory left, jobs go first.
                "oomScoreAdj": 1000,
            },
            "root": { "path": root, "readonly": true },
            "hostname": HOSTNAME,
            "mounts": mounts,
            "linux": {
                "uidMappings": ids,
                "gidMappings": ids,
                "cgroupsPath": format!("/{cgroup}"),
                "resources": {
                    "devices": [{ "allow": false, "access": "rwm" }],
                    "memory": memory(limits.memory_bytes),
                    "pids": { "limit": PROCESSES_MAX },
                    "cpu": cpu,
                },
                "namespaces": (["pid", "network", "ipc", "uts", "mount", "user", "cgroup"])
                    .map(|kind| json!({ "type": kind })),
                "seccomp": seccomp::profile(),
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
            },
        })
    }
}

/// Memory and swap together are the limit, where the kernel counts swap.
fn memory(bytes: u64) -> Value {
    let bytes = bytes.min(i64::MAX as u64 / 2) / 4096 * 4096;
    let swap = ["memory/memory.memsw.limit_in_bytes", "cgroup.controllers"]
        .iter()
        .any(|file| Path::new("/sys/fs/cgroup").join(file).exists());
    if swap { json!({ "limit": bytes, "swap": bytes }) } else { json!({ "limit": bytes }) }
}
