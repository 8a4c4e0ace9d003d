//! One run of a job in a container of its own.
//!
//! A shell in a mount namespace of its own mounts a file system in memory, as large as what the job may write, waits until it
//! is filled, and becomes `runc run`. This process holds a descriptor of that file system, so that it can read what the job
//! left after all its namespaces are gone; when the descriptor is closed, the bytes are gone, too. The machine's own mounts
//! never change.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::lchown, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use super::{
    PATH, Stop,
    bundle::{Limits, OWNER, Plan, folder_of, is_folder},
    cgroup,
    collect::{Collected, collect, make_folders},
    layers::Files,
    workspace::{Workspace, delete},
};
use crate::Job;

/// Room beyond what the job may write: whoever comes near it wrote too much.
const SLACK_BYTES: u64 = 1024 * 1024;
/// Files, folders and links in memory at most.
const INODES_MAX: u64 = 262_144;
/// Bytes of runc's log that are read.
const LOG_BYTES_MAX: u64 = 64 * 1024;

/// `$1`: where to mount, `$2`: options, `$3`: standard input, `$4`: runc, `$5`: its state, `$6`: its log, `$7`: the bundle,
/// `$8`: the container.
const SCRIPT: &str = r#"set -e
mount -t tmpfs -o "$2" tmpfs "$1"
echo ready
read -r _
exec "$4" --root "$5" --log "$6" --log-format json run --keep --bundle "$7" "$8" <"$3""#;
const READY: &[u8] = b"ready\n";

/// What a run may use.
pub(super) struct Budget {
    pub(super) limits: Limits,
    pub(super) output_bytes: u64,
    pub(super) wall: Duration,
}

/// What a run gave.
#[derive(Debug)]
pub(super) struct Ran {
    /// 128 and the signal where a signal ended it, as a shell says it.
    pub(super) exit_code: i32,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) collected: Collected,
}

/// What a verification has on the disk.
pub(super) struct Scene<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) runc: &'a Path,
    pub(super) root: &'a Path,
    pub(super) job: &'a Job,
    pub(super) plan: &'a Plan,
    pub(super) stdin: Option<&'a [u8]>,
}

enum Said {
    Exited(std::io::Result<ExitStatus>),
    Flooded,
}

/// A container that may be there; nothing of it is left when this is dropped.
struct Running<'a> {
    process: OwnedFd,
    runc: &'a Path,
    state: PathBuf,
    container: String,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // runc itself first, so that it starts nothing any more; it may be gone already.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        delete(self.runc, &self.state, &self.container);
        cgroup::remove(&self.container);
    }
}

impl Scene<'_> {
    /// Runs the job once. `run` counts from 1.
    pub(super) fn run(&self, run: usize, budget: &Budget, files: &mut Files) -> Result<Ran, Stop> {
        let failed = Stop::io("the workspace");
        let container = self.workspace.container(run);
        let bundle = self.workspace.folder.join(format!("run{run}"));
        let (writable, inputs) = (bundle.join("writable"), bundle.join("inputs"));
        for folder in [&bundle, &writable, &inputs] {
            fs::create_dir(folder).map_err(&failed)?;
            // Jobs run as another user, who must come through.
            fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o711)).map_err(&failed)?;
        }
        for (number, (_, bytes)) in self.plan.bound.iter().enumerate() {
            let mut file = File::create_new(inputs.join(number.to_string())).map_err(&failed)?;
            file.write_all(bytes).map_err(&failed)?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444)).map_err(&failed)?;
        }
        let config = self.plan.config(self.root, &writable, &inputs, &container, &budget.limits);
        fs::write(bundle.join("config.json"), config.to_string()).map_err(&failed)?;

        let mut bytes = budget.output_bytes.saturating_add(SLACK_BYTES);
        for place in &self.plan.places {
            bytes = bytes.saturating_add(files.pages(&place.image)?);
        }
        let bytes = bytes.saturating_add(self.stdin.map_or(0, |stdin| stdin.len() as u64)).min(1 << 50);
        let options = format!("size={bytes},nr_inodes={INODES_MAX},mode=0711,nosuid,nodev");
        let mut child = self.spawn(&bundle, &writable, &options, &container)?;
        let pid = Pid::from_raw(child.id().cast_signed()).ok_or_else(|| Stop::fault("a process without a number"))?;
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| failed(error.into()))?;
        let running = Running { process, runc: self.runc, state: self.workspace.folder.join("state"), container };
        let started = self.workspace.tell(Some(child.id())).and_then(|()| {
            let filled = self.fill(&mut child, &writable, files)?;
            let mut go = child.stdin.take().ok_or_else(|| Stop::fault("a process without a standard input"))?;
            go.write_all(b"go\n").map_err(Stop::io("the container's start"))?;
            Ok(filled)
        });
        let (held, view) = match started {
            Ok(filled) => filled,
            Err(stop) => {
                drop(running);
                let said = child.wait_with_output().map(|output| output.stderr).unwrap_or_default();
                return Err(stop.because(&String::from_utf8_lossy(&said)));
            }
        };
        let (status, stdout, stderr) = await_end(child, running, budget, |running| {
            let refused = cgroup::refused(&running.container);
            let complaint = complaint(&bundle.join("log"));
            match (refused, complaint) {
                (Some(refused), _) if refused.memory => {
                    Err(Stop::memory(format!("the job wanted more than {} bytes", budget.limits.memory_bytes)))
                }
                (Some(refused), _) if refused.processes => {
                    Err(Stop::operator("the job wanted more processes than this verifier allows"))
                }
                (_, Some(complaint)) => Err(complaint),
                (None, None) => Err(Stop::fault("the counters of the control group cannot be read")),
                (Some(_), None) => Ok(()),
            }
        })?;
        self.workspace.tell(None)?;
        let exit_code = status.code().ok_or_else(|| Stop::fault(format!("runc ended by {status}")))?;
        let free = rustix::fs::fstatvfs(&held).map_err(|error| failed(error.into()))?;
        if free.f_bfree.saturating_mul(free.f_frsize) < SLACK_BYTES {
            return Err(Stop::output(format!("the job wrote more than {} bytes", budget.output_bytes)));
        }
        let said = (stdout.len() + stderr.len()) as u64;
        let left = budget.output_bytes.saturating_sub(said);
        let named: Vec<&str> = self.job.inputs.iter().map(|input| input.path.as_str()).collect();
        let collected = collect(&self.job.outputs, &named, &self.plan.places, &view, left)?;
        Ok(Ran { exit_code, stdout, stderr, collected })
    }

    fn spawn(&self, bundle: &Path, writable: &Path, options: &str, container: &str) -> Result<Child, Stop> {
        let stdin = match self.stdin {
            Some(_) => writable.join("stdin"),
            None => PathBuf::from("/dev/null"),
        };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", SCRIPT, "tribunal-job"]);
        command.arg(writable).arg(options).arg(stdin).arg(self.runc).arg(self.workspace.folder.join("state"));
        command.arg(bundle.join("log")).arg(bundle).arg(container);
        // The keys that a person presses are not for jobs.
        command.env_clear().env("PATH", PATH).current_dir("/").process_group(0);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        spawned.map_err(|error| Stop::unavailable(format!("unshare, of util-linux, does not start: {error}")))
    }

    /// Waits for the file system in memory and fills it; gives a descriptor that keeps it, and the path of that.
    fn fill(&self, child: &mut Child, writable: &Path, files: &mut Files) -> Result<(File, PathBuf), Stop> {
        let failed = Stop::io("the job's folders");
        let stdout = child.stdout.as_mut().ok_or_else(|| Stop::fault("a process without a standard output"))?;
        let mut ready = [0; READY.len()];
        // A pipe reads no further than it is asked to: what follows is the job's.
        stdout.read_exact(&mut ready).map_err(|_| Stop::unavailable("no file system can be mounted"))?;
        let root = PathBuf::from(format!("/proc/{}/root", child.id()));
        let inside = writable.strip_prefix("/").map_err(|_| Stop::fault("the workspace has no absolute path"))?;
        let held = File::open(root.join(inside)).map_err(&failed)?;
        let view = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let plan = self.plan;
        for (number, place) in plan.places.iter().enumerate() {
            let folder = view.join(number.to_string());
            fs::create_dir(&folder).map_err(&failed)?;
            files.copy(&place.image, &folder, OWNER)?;
        }
        for output in &self.job.outputs {
            // A file of the image or an input may stand where a folder would be made.
            let is_input = self.job.inputs.iter().any(|input| input.path == *output);
            let folder = if is_folder(output) && !is_input { output } else { folder_of(output) };
            make_folders(folder, &plan.places, &view)?;
        }
        for (path, _) in &plan.bound {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            let at = make_folders(folder, &plan.places, &view)?.join(name);
            if fs::symlink_metadata(&at).is_ok_and(|metadata| !metadata.is_file()) {
                return Err(Stop::unsupported(format!("{path} is an input of the job and no file of the image")));
            }
            // Bound over; nobody reads it.
            let _ = fs::remove_file(&at);
            File::create_new(&at).map_err(&failed)?;
            lchown(&at, Some(OWNER), Some(OWNER)).map_err(&failed)?;
        }
        if let Some(stdin) = self.stdin {
            // Here, in case a runc hands the file itself on: what a job writes to it then counts as written.
            fs::write(view.join("stdin"), stdin).map_err(&failed)?;
        }
        Ok((held, view))
    }
}

/// Waits until the container ends by itself or must be stopped. `last` looks at it before it is removed.
fn await_end(
    mut child: Child,
    running: Running<'_>,
    budget: &Budget,
    last: impl FnOnce(&Running<'_>) -> Result<(), Stop>,
) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Stop> {
    let deadline = Instant::now().checked_add(budget.wall);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Stop::fault("a process without standard streams"));
    };
    let said = AtomicU64::new(0);
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        // Stopped before the scope waits for its threads, whatever happens here.
        let running = running;
        let (for_stdout, for_stderr, said) = (tell.clone(), tell.clone(), &said);
        let most = budget.output_bytes;
        let stdout = scope.spawn(move || listen(stdout, said, most, &for_stdout));
        let stderr = scope.spawn(move || listen(stderr, said, most, &for_stderr));
        scope.spawn(move || tell.send(Said::Exited(child.wait())));
        let next = match deadline {
            Some(deadline) => told.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => told.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected),
        };
        let status = match next {
            Ok(Said::Exited(status)) => status.map_err(Stop::io("runc"))?,
            Ok(Said::Flooded) => return Err(Stop::output(format!("the job wrote more than {most} bytes"))),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(Stop::wall(format!("the job still ran after {} ms", budget.wall.as_millis())));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(Stop::fault("nobody waits for runc")),
        };
        last(&running)?;
        drop(running);
        let heard = |bytes: thread::Result<std::io::Result<Option<Vec<u8>>>>| match bytes {
            Ok(Ok(Some(bytes))) => Ok(bytes),
            Ok(Ok(None)) => Err(Stop::output(format!("the job wrote more than {most} bytes"))),
            Ok(Err(error)) => Err(Stop::io("the job's output")(error)),
            Err(_) => Err(Stop::fault("the reader of the job's output panicked")),
        };
        Ok((status, heard(stdout.join())?, heard(stderr.join())?))
    })
}

/// Reads a stream to its end; nothing where all streams together say more than `most` bytes.
fn listen(
    mut stream: impl Read,
    said: &AtomicU64,
    most: u64,
    tell: &mpsc::Sender<Said>,
) -> std::io::Result<Option<Vec<u8>>> {
    let (mut all, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Ok(Some(all)),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if said.fetch_add(count as u64, Ordering::Relaxed).saturating_add(count as u64) > most {
            let _ = tell.send(Said::Flooded);
            return Ok(None);
        }
        all.extend_from_slice(&buffer[..count]);
    }
}

/// The first error in runc's log: why there was no container.
fn complaint(log: &Path) -> Option<Stop> {
    let mut text = String::new();
    File::open(log).ok()?.take(LOG_BYTES_MAX).read_to_string(&mut text).ok()?;
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let error = lines.find(|line| line["level"] == "error")?;
    let message: String = error["msg"].as_str().unwrap_or_default().chars().take(300).collect();
    Some(if message.contains("OOM") {
        Stop::memory(message)
    } else if message.contains("exec: \"") || message.contains("exec /") || message.contains("exec format") {
        Stop::unsupported(format!("the job's program does not start: {message}"))
    } else {
        Stop::fault(format!("runc: {message}"))
    })
}
