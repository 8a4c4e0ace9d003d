//! What a killed engine leaves is cleaned: by its guardian, or by the next job.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tribunal_verifiers::Containers;

use super::{Container, is_root};

const FOLDER: &str = "TRIBUNAL_TEST_CONTAINERS";

/// Looks again and again, for a minute at most.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        thread::yield_now();
    }
}

/// In a process of its own this is the job that is killed; else it shows that such a job is stopped by the clock.
#[test]
fn a_job_without_end_runs_in_a_folder_of_ones_own() {
    let mut job = Container::probe(&["loop"]);
    match std::env::var_os(FOLDER) {
        Some(folder) => job.containers = Containers::new("runc", folder),
        None => job = job.set("/job/limits/wall_ms", json!(300)),
    }
    job.begins("inconclusive wall-time: ");
}

/// A process of ours with a job that runs; gives the process and the job's control group.
fn start(base: &Path) -> (Child, PathBuf) {
    let program = std::env::current_exe().expect("this program");
    let test = "containers::leftovers::a_job_without_end_runs_in_a_folder_of_ones_own";
    let mut command = Command::new(program);
    command.args(["--exact", test]).env(FOLDER, base).stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.spawn().expect("this program runs");
    let group = until("a container", || {
        let folder = workspace(base)?;
        let name = format!("{}-1", folder.file_name()?.to_str()?);
        let group = groups(&name)
            .into_iter()
            .find(|group| group.join("memory.max_usage_in_bytes").exists() || group.join("memory.max").exists())?;
        // Its own program runs, not runc any more.
        let pid = fs::read_to_string(group.join("cgroup.procs")).ok()?.lines().next()?.to_owned();
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        command.starts_with(b"/probe").then_some(group)
    });
    (child, group)
}

fn workspace(base: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(base).ok()?.flatten().map(|entry| entry.path());
    entries.find(|path| path.is_dir())
}

fn groups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).expect("control groups").flatten().map(|entry| entry.path());
    let all = std::iter::once(root.to_owned()).chain(hierarchies).map(|hierarchy| hierarchy.join(name));
    all.filter(|group| group.exists()).collect()
}

fn kill(mut child: Child) {
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
}

#[test]
fn a_guardian_cleans_after_a_killed_engine() {
    if !is_root() {
        return Container::probe(&["loop"]).begins("");
    }
    let host = Container::probe(&["exit", "0"]);
    let (engine, group) = start(&host.base());
    kill(engine);
    until("the end of the folder", || workspace(&host.base()).is_none().then_some(()));
    assert!(groups(group.file_name().and_then(|name| name.to_str()).expect("a name")).is_empty(), "{group:?} is left");
    host.nothing_is_left();
}

#[test]
fn the_next_job_cleans_where_the_guardian_was_killed_too() {
    if !is_root() {
        return Container::probe(&["loop"]).begins("");
    }
    let host = Container::probe(&["exit", "0"]);
    let (engine, group) = start(&host.base());
    let folder = workspace(&host.base()).expect("it runs");
    let guard = until("the guardian", || {
        let processes = fs::read_dir("/proc").expect("processes").flatten().map(|entry| entry.path());
        let mut guards = processes.filter(|process| {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            let mut words = command.split(|byte| *byte == 0);
            words.any(|word| word == b"tribunal-guard")
                && words.any(|word| word == folder.as_os_str().as_encoded_bytes())
        });
        guards.next()
    });
    let pid: i32 = guard.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is ours");
    kill(engine);
    assert!(group.exists() && folder.exists(), "nobody is left to clean");
    host.begins("valid ok");
    assert!(!group.exists(), "{group:?} is left");
}
