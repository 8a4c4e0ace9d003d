//! The files of an image as a tree in memory: layers are laid over one another here, where no path leads anywhere else.
//!
//! **Invariant:** a name from an archive becomes a path of this machine only after all layers are read, one name at a time,
//! below a new folder, in folders that this program made. So a link in an image cannot lead a write out of it.

use std::collections::BTreeMap;

use super::{
    Stop,
    archive::{Kind, Member, plain},
};

/// Folders in folders.
const DEPTH_MAX: usize = 64;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;
/// Links followed in one path.
const LINKS_MAX: usize = 40;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Permissions and time of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) mode: u32,
    pub(super) modified_s: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Folder(Folder),
    /// Bytes by number; names of one file share it.
    File {
        bytes: usize,
        marks: Marks,
    },
    Link {
        target: Vec<u8>,
        modified_s: u64,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) entries: BTreeMap<Vec<u8>, Entry>,
    pub(super) marks: Marks,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) node: Node,
    /// The layer that put it here.
    layer: usize,
}

impl Default for Folder {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), marks: Marks { mode: 0o755, modified_s: 0 } }
    }
}

fn shown(path: &[Vec<u8>]) -> String {
    format!("/{}", String::from_utf8_lossy(&path.join(&b'/')))
}

impl Folder {
    fn get(&self, path: &[Vec<u8>]) -> Option<&Node> {
        let (last, folders) = path.split_last()?;
        let mut at = self;
        for name in folders {
            match &at.entries.get(name)?.node {
                Node::Folder(folder) => at = folder,
                _ => return None,
            }
        }
        at.entries.get(last).map(|entry| &entry.node)
    }

    /// The folder at a path without links; made where it is missing, `left` of them at most.
    fn folder(&mut self, path: &[Vec<u8>], layer: usize, left: &mut usize) -> Result<&mut Self, Stop> {
        if path.len() > DEPTH_MAX {
            return Err(Stop::invalid(format!("folders of the image lie more than {DEPTH_MAX} deep")));
        }
        let mut at = self;
        for (depth, name) in path.iter().enumerate() {
            check_name(name)?;
            if !at.entries.contains_key(name) {
                let more = || Stop::operator("the image has more folders than this verifier unpacks");
                *left = left.checked_sub(1).ok_or_else(more)?;
            }
            let new = || Entry { node: Node::Folder(Self::default()), layer };
            at = match &mut at.entries.entry(name.clone()).or_insert_with(new).node {
                Node::Folder(folder) => folder,
                _ => return Err(Stop::invalid(format!("{} is no folder of the image", shown(&path[..=depth])))),
            };
        }
        Ok(at)
    }

    /// Drops what lower layers put here.
    fn drop_lower(&mut self, layer: usize) {
        self.entries.retain(|_, entry| match &mut entry.node {
            Node::Folder(folder) => {
                folder.drop_lower(layer);
                entry.layer == layer || !folder.entries.is_empty()
            }
            _ => entry.layer == layer,
        });
    }

    /// Drops what lower layers put under a name.
    fn drop_lower_entry(&mut self, name: &[u8], layer: usize) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let stays = match &mut entry.node {
            Node::Folder(folder) => {
                folder.drop_lower(layer);
                entry.layer == layer || !folder.entries.is_empty()
            }
            _ => entry.layer == layer,
        };
        if !stays {
            self.entries.remove(name);
        }
    }

    /// Follows links in all folders of a path, never above the root.
    fn resolve(&self, folders: &[&[u8]]) -> Result<Vec<Vec<u8>>, Stop> {
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut left: Vec<Vec<u8>> = folders.iter().rev().map(|name| name.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = left.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(name),
            }
            if let Some(Node::Link { target, .. }) = self.get(&done) {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Stop::invalid(format!("{} leads through more than {LINKS_MAX} links", shown(&done))));
                }
                if target.starts_with(b"/") {
                    done.clear();
                } else {
                    done.pop();
                }
                left.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
            }
        }
        Ok(done)
    }

    /// Lays one member of a layer over what is there. `bytes`: the number of a file's bytes; `left`: folders that may be
    /// made because no member is one.
    pub(super) fn lay(&mut self, layer: usize, member: &Member, bytes: usize, left: &mut usize) -> Result<(), Stop> {
        let names = plain(&member.path)?;
        let marks = Marks { mode: member.mode, modified_s: member.modified_s };
        let Some((name, folders)) = names.split_last() else {
            // The root itself.
            if member.kind != Kind::Folder {
                return Err(Stop::invalid("the root of a layer is no folder"));
            }
            self.marks = marks;
            return Ok(());
        };
        let folders = self.resolve(folders)?;
        if *name == OPAQUE {
            if folders.is_empty() || matches!(self.get(&folders), Some(Node::Folder(_))) {
                self.folder(&folders, layer, left)?.drop_lower(layer);
            }
            return Ok(());
        }
        if let Some(gone) = name.strip_prefix(WHITEOUT) {
            if gone.is_empty() || gone == b"." || gone == b".." {
                return Err(Stop::invalid(format!("{} in a layer is a whiteout of nothing", shown(&folders))));
            }
            // The rest of this form are notes of aufs to itself.
            let is_note = gone.starts_with(WHITEOUT);
            if !is_note && (folders.is_empty() || matches!(self.get(&folders), Some(Node::Folder(_)))) {
                self.folder(&folders, layer, left)?.drop_lower_entry(gone, layer);
            }
            return Ok(());
        }
        check_name(name)?;
        let node = match member.kind {
            Kind::File => Some(Node::File { bytes, marks }),
            Kind::Symlink if member.link.is_empty() => {
                return Err(Stop::invalid(format!("a link below {} leads nowhere", shown(&folders))));
            }
            Kind::Symlink => Some(Node::Link { target: member.link.clone(), modified_s: member.modified_s }),
            Kind::Hardlink => Some(self.linked(&member.link)?),
            Kind::Folder => None,
            // No job may use a device, and nobody waits at the other end of a pipe.
            Kind::Special => {
                self.folder(&folders, layer, left)?.entries.remove(*name);
                return Ok(());
            }
        };
        let parent = self.folder(&folders, layer, left)?;
        match (node, parent.entries.get_mut(*name)) {
            (None, Some(entry @ Entry { node: Node::Folder(_), .. })) => {
                entry.layer = layer;
                if let Node::Folder(folder) = &mut entry.node {
                    folder.marks = marks;
                }
            }
            (node, _) => {
                let node = node.unwrap_or_else(|| Node::Folder(Self { marks, ..Self::default() }));
                parent.entries.insert(name.to_vec(), Entry { node, layer });
            }
        }
        Ok(())
    }

    /// What a hard link names.
    fn linked(&self, target: &[u8]) -> Result<Node, Stop> {
        // Some tools write the target of a hard link as an absolute path; it is one of the image.
        let names = plain(target.strip_prefix(b"/").unwrap_or(target))?;
        let (name, folders) = names.split_last().ok_or_else(|| Stop::invalid("a hard link leads to the root"))?;
        let mut path = self.resolve(folders)?;
        path.push(name.to_vec());
        match self.get(&path) {
            Some(Node::Folder(_)) => Err(Stop::invalid(format!("a hard link leads to the folder {}", shown(&path)))),
            Some(node) => Ok(node.clone()),
            None => Err(Stop::invalid(format!("a hard link leads to {}, which is not there", shown(&path)))),
        }
    }

    /// The folder at a path of the job, made where it is missing; a link on the way is refused.
    pub(super) fn job_folder(&mut self, path: &str) -> Result<&mut Self, Stop> {
        let names: Vec<_> =
            path.split('/').filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()).collect();
        for length in 1..=names.len() {
            if let Some(Node::Link { .. } | Node::File { .. }) = self.get(&names[..length]) {
                let what = shown(&names[..length]);
                return Err(Stop::unsupported(format!(
                    "{what} must be a folder for this job and is none in the image"
                )));
            }
        }
        self.folder(&names, usize::MAX, &mut { DEPTH_MAX })
    }

    /// Puts a file before the job, over whatever file the image has there.
    pub(super) fn put_file(&mut self, path: &str, bytes: usize) -> Result<(), Stop> {
        let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.job_folder(folders)?;
        if let Some(Entry { node: Node::Folder(_) | Node::Link { .. }, .. }) = folder.entries.get(name.as_bytes()) {
            return Err(Stop::unsupported(format!("{path} is an input of the job and a folder or link of the image")));
        }
        check_name(name.as_bytes())?;
        let node = Node::File { bytes, marks: Marks { mode: 0o444, modified_s: 0 } };
        folder.entries.insert(name.as_bytes().to_vec(), Entry { node, layer: usize::MAX });
        Ok(())
    }
}

fn check_name(name: &[u8]) -> Result<(), Stop> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(Stop::invalid(format!("{:?} is no name of a file", String::from_utf8_lossy(name))));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(Stop::invalid(format!("a name in the image has more than {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}
