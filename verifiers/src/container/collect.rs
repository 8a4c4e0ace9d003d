//! What a job left in the folders that it could write to. Nothing runs there any more, and no link is followed.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::lchown,
    path::{Path, PathBuf},
};

use super::{
    Stop,
    bundle::{OWNER, Place, inside},
};

/// Files and folders that are looked at.
const ENTRIES_MAX: usize = 65_536;
/// Folders in an output.
const DEPTH_MAX: usize = 64;

/// Files by path, and folders that are there.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) folders: Vec<String>,
    /// Links and other things that no claim can name.
    pub(super) others: bool,
}

/// Where the job's path lies: the folder of its place, and the names below.
fn locate<'p>(path: &'p str, places: &[Place], writable: &Path) -> Option<(PathBuf, Vec<&'p str>)> {
    let number = places.iter().position(|place| inside(path, &place.path))?;
    let below = path[places[number].path.len()..].split('/').filter(|name| !name.is_empty());
    Some((writable.join(number.to_string()), below.collect()))
}

/// Makes the folders of a path in its place, before the job runs.
pub(super) fn make_folders(path: &str, places: &[Place], writable: &Path) -> Result<PathBuf, Stop> {
    let failed = Stop::io("the job's folders");
    let Some((mut at, names)) = locate(path, places, writable) else {
        return Err(Stop::fault(format!("{path} lies in no folder that can be written to")));
    };
    for name in names {
        at.push(name);
        match fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(Stop::unsupported(format!("{path} leads through a file or link of the image"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&at).map_err(&failed)?;
                lchown(&at, Some(OWNER), Some(OWNER)).map_err(&failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(at)
}

/// Reads every file of the outputs but the inputs, `bytes_max` bytes at most.
pub(super) fn collect(
    outputs: &[String],
    inputs: &[&str],
    places: &[Place],
    writable: &Path,
    bytes_max: u64,
) -> Result<Collected, Stop> {
    let failed = Stop::io("the job's outputs");
    let mut collected = Collected::default();
    let (mut left, mut entries) = (bytes_max, ENTRIES_MAX);
    for output in outputs {
        let Some((mut at, names)) = locate(output, places, writable) else { continue };
        let (last, folders) = match names.split_last() {
            Some((last, folders)) => (Some(last), folders),
            None => (None, &names[..]),
        };
        let mut there = true;
        for name in folders {
            at.push(name);
            // The job may have put a link here.
            there &= fs::symlink_metadata(&at).is_ok_and(|metadata| metadata.is_dir());
        }
        if let Some(last) = last {
            at.push(last);
        }
        let mut open = if there { vec![(output.clone(), at, 0)] } else { Vec::new() };
        while let Some((path, at, depth)) = open.pop() {
            let metadata = match fs::symlink_metadata(&at) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            if metadata.is_file() {
                if inputs.contains(&path.as_str()) || collected.files.contains_key(&path) {
                    continue;
                }
                let beyond = || Stop::output(format!("{path}: the outputs have more than {bytes_max} bytes"));
                left = left.checked_sub(metadata.len()).ok_or_else(beyond)?;
                collected.files.insert(path, fs::read(&at).map_err(&failed)?);
            } else if metadata.is_dir() {
                if depth > DEPTH_MAX {
                    return Err(Stop::output(format!("{path}: folders lie more than {DEPTH_MAX} deep")));
                }
                for entry in fs::read_dir(&at).map_err(&failed)? {
                    let entry = entry.map_err(&failed)?;
                    let many = || Stop::output(format!("the outputs have more than {ENTRIES_MAX} files"));
                    entries = entries.checked_sub(1).ok_or_else(many)?;
                    let Ok(name) = entry.file_name().into_string() else {
                        return Err(Stop::output(format!("{path} has a file whose name is no UTF-8")));
                    };
                    open.push((format!("{path}/{name}"), entry.path(), depth + 1));
                }
                collected.folders.push(path);
            } else {
                collected.others = true;
            }
        }
    }
    Ok(collected)
}
