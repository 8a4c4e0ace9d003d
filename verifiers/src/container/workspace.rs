//! The folder of one verification, and what is cleaned when it ends: by us, by a guardian where we are killed, by the next
//! verification where the guardian is killed, too.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{ErrorKind, Write},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{PATH, Stop, cgroup};

/// Runs of one job at most: each has a container of its own.
pub(super) const RUNS_MAX: usize = 2;

/// Reads lines as long as its parent lives: `done`, the process group of a run, or `-` after that. Without `done` it cleans.
/// `$1`: runc, `$2`: the folder, `$3`: what containers are named by.
const GUARD: &str = r#"trap '' HUP INT TERM
group=-
while read -r line; do
  test "$line" = done && exit 0
  group="$line"
done
test "$group" = - || kill -KILL "-$group"
for run in 1 2; do
  "$1" --root "$2/state" delete --force "$3-$run"
  rmdir "/sys/fs/cgroup/$3-$run" /sys/fs/cgroup/*/"$3-$run"
done
rm -rf "$2""#;

/// A new folder that nobody else has; all of it is gone when this is dropped.
pub(super) struct Workspace {
    pub(super) folder: PathBuf,
    /// Containers are named by it, with the number of the run.
    pub(super) id: String,
    runc: PathBuf,
    guard: Option<Child>,
    /// Locked while this process lives.
    _lock: File,
}

impl Workspace {
    /// Cleans what killed processes left in `base`, then makes a folder there.
    pub(super) fn new(base: &Path, runc: &Path) -> Result<Self, Stop> {
        let failed = Stop::io("the folder for containers");
        prepare(base)?;
        let all = File::create(base.join("lock")).map_err(&failed)?;
        // Held while folders without locks may be there.
        all.lock().map_err(&failed)?;
        for entry in fs::read_dir(base).map_err(&failed)? {
            let folder = entry.map_err(&failed)?.path();
            if folder.is_dir() {
                sweep(&folder, runc);
            }
        }
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(&failed)?;
        let id = format!("tribunal-{}", uuid.trim());
        let folder = base.join(&id);
        DirBuilder::new().mode(0o711).create(&folder).map_err(&failed)?;
        let lock = File::create_new(folder.join("lock")).map_err(&failed)?;
        lock.lock().map_err(&failed)?;
        let mut workspace = Self { folder, id, runc: runc.to_owned(), guard: None, _lock: lock };
        workspace.guard = Some(workspace.guard()?);
        Ok(workspace)
    }

    fn guard(&self) -> Result<Child, Stop> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARD, "tribunal-guard"]).arg(&self.runc).arg(&self.folder).arg(&self.id);
        command.env_clear().env("PATH", PATH).current_dir("/").process_group(0);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        spawned.map_err(Stop::io("the guard of a container"))
    }

    /// Tells the guardian which process group to kill first; none when a run is over.
    pub(super) fn tell(&self, group: Option<u32>) -> Result<(), Stop> {
        let word = group.map_or_else(|| "-".to_owned(), |group| group.to_string());
        let stdin = self.guard.as_ref().and_then(|guard| guard.stdin.as_ref());
        let mut stdin = stdin.ok_or_else(|| Stop::fault("a container without a guard"))?;
        writeln!(stdin, "{word}").map_err(Stop::io("the guard of a container"))
    }

    /// Name of the container of a run, which begin at 1.
    pub(super) fn container(&self, run: usize) -> String {
        format!("{}-{run}", self.id)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        clean(&self.folder, &self.id, &self.runc);
        if let Some(mut guard) = self.guard.take() {
            // Where it is gone already there is nobody to send home.
            let _ = guard.stdin.take().map(|mut stdin| stdin.write_all(b"done\n"));
            let _ = guard.wait();
        }
    }
}

/// The folder of all workspaces: ours, and nobody else may write into it.
fn prepare(base: &Path) -> Result<(), Stop> {
    let failed = Stop::io("the folder for containers");
    match DirBuilder::new().mode(0o711).create(base) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let metadata = fs::symlink_metadata(base).map_err(&failed)?;
    let owner = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || metadata.uid() != owner || metadata.mode() & 0o022 != 0 {
        let detail = format!("{} must be a folder of this user that no other one may write into", base.display());
        return Err(Stop::fault(detail));
    }
    // Jobs run as another user, who must come through.
    fs::set_permissions(base, Permissions::from_mode(0o711)).map_err(failed)
}

/// Cleans a workspace whose process is gone.
fn sweep(folder: &Path, runc: &Path) {
    let Some(id) = folder.file_name().and_then(|name| name.to_str()).filter(|name| name.starts_with("tribunal-"))
    else {
        return;
    };
    match File::open(folder.join("lock")).map(|lock| lock.try_lock().map(|()| lock)) {
        Ok(Err(TryLockError::WouldBlock)) => {}
        // No lock: its process was killed between two calls.
        Ok(_) | Err(_) => clean(folder, id, runc),
    }
}

fn clean(folder: &Path, id: &str, runc: &Path) {
    for run in 1..=RUNS_MAX {
        let container = format!("{id}-{run}");
        if folder.join("state").join(&container).exists() {
            delete(runc, &folder.join("state"), &container);
        }
        cgroup::remove(&container);
    }
    // What cannot be removed now is swept by the next verification.
    let _ = fs::remove_dir_all(folder);
}

/// Kills a container and removes what runc keeps of it.
pub(super) fn delete(runc: &Path, state: &Path, container: &str) {
    let mut command = Command::new(runc);
    command.arg("--root").arg(state).args(["delete", "--force", container]);
    command.env_clear().env("PATH", PATH).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.status();
}
