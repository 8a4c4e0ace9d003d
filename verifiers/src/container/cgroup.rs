//! Control groups, of either version: what they counted, and removing one that runc left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "/sys/fs/cgroup";
/// How often a group that still has processes is looked at again.
const REMOVALS_MAX: usize = 1000;

/// What a container was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// A process was killed for the memory it wanted.
    pub(super) memory: bool,
    /// A process or thread was not started.
    pub(super) processes: bool,
}

/// Names of the controllers that containers can have.
pub(super) fn controllers() -> BTreeSet<String> {
    if let Ok(words) = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")) {
        return words.split_whitespace().map(str::to_owned).collect();
    }
    let folders = fs::read_dir(ROOT).into_iter().flatten().flatten();
    folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The groups of that name in every hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(ROOT).into_iter().flatten().flatten().map(|entry| entry.path());
    let all = std::iter::once(PathBuf::from(ROOT)).chain(hierarchies).map(|hierarchy| hierarchy.join(name));
    all.filter(|group| group.is_dir()).collect()
}

/// Reads the counters of a container that has ended and is not removed yet; nothing where they are not there.
pub(super) fn refused(name: &str) -> Option<Refused> {
    let groups = groups(name);
    let count = |file: &str, key: &str| {
        let text = groups.iter().find_map(|group| fs::read_to_string(group.join(file)).ok())?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == key).and_then(|(_, count)| count.trim().parse::<u64>().ok())
    };
    let killed = count("memory.events", "oom_kill").or_else(|| count("memory.oom_control", "oom_kill"))?;
    Some(Refused { memory: killed > 0, processes: count("pids.events", "max")? > 0 })
}

/// Kills what is in the groups of that name and removes them.
pub(super) fn remove(name: &str) {
    for group in groups(name) {
        for _ in 0..REMOVALS_MAX {
            for line in fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
                if let Some(pid) = line.parse().ok().and_then(Pid::from_raw) {
                    // It may be gone by now.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            if fs::remove_dir(&group).is_ok() || !group.exists() {
                break;
            }
            thread::yield_now();
        }
    }
}
