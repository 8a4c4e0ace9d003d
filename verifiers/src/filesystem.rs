//! The files a job sees: a tree in memory, with one budget for all bytes the job writes.
//!
//! Input files are read-only, times are zero, folders list in byte order of names, and no path leads out of the root.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{Job, wasi::Errno};

/// Files, folders and links at most; their names are no part of `output_bytes`.
const NODES_MAX: usize = 65_536;
/// Bytes of a path and of one of its segments.
const PATH_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 255;
/// Symbolic links followed in one path.
const LINKS_MAX: usize = 40;

pub(crate) type NodeId = usize;
pub(crate) const ROOT: NodeId = 0;

#[derive(Debug)]
pub(crate) enum Node {
    Folder {
        entries: BTreeMap<String, NodeId>,
        parent: NodeId,
    },
    /// A job's input.
    Input(Arc<[u8]>),
    File(Vec<u8>),
    Link(String),
}

#[derive(Debug)]
struct Slot {
    node: Node,
    /// Names that lead here.
    names: u32,
    /// Descriptors that hold it.
    open: u32,
}

/// Where a path leads: the folder that holds the last name, and what stands there.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) parent: NodeId,
    /// Empty where the path ends in the folder itself.
    pub(crate) name: String,
    pub(crate) node: Option<NodeId>,
    /// The path ends in a slash.
    pub(crate) folder: bool,
}

#[derive(Debug)]
pub(crate) struct FileSystem {
    slots: Vec<Slot>,
    free: Vec<NodeId>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    bytes: u64,
    bytes_max: u64,
    /// A write was refused.
    pub(crate) full: bool,
    /// A file, folder or link was refused.
    pub(crate) crowded: bool,
}

impl FileSystem {
    /// The tree of a job before its first instruction. `inputs` are the bytes of the job's inputs, in their order.
    pub(crate) fn new(job: &Job, inputs: &[Arc<[u8]>], bytes_max: u64) -> Result<Self, String> {
        let root = Slot { node: Node::Folder { entries: BTreeMap::new(), parent: ROOT }, names: 1, open: 1 };
        let mut fs = Self {
            slots: vec![root],
            free: Vec::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            bytes: 0,
            bytes_max,
            full: false,
            crowded: false,
        };
        for (input, bytes) in job.inputs.iter().zip(inputs) {
            let (folders, name) = input.path.rsplit_once('/').unwrap_or(("", &input.path));
            let parent = fs.folders(folders)?;
            if fs.child(parent, name).is_some() {
                return Err(format!("{} is a file and a folder", input.path));
            }
            fs.add(parent, name, Node::Input(bytes.clone()))
                .map_err(|_| "more files than a job may have".to_owned())?;
        }
        for output in &job.outputs {
            let (folders, name) = output.rsplit_once('/').unwrap_or(("", output));
            if name.contains('.') {
                fs.folders(folders)?;
            } else if fs.find(output).is_none_or(|node| matches!(fs.node(node), Node::Folder { .. })) {
                fs.folders(output)?;
            }
        }
        Ok(fs)
    }

    /// Lays the files out without bytes, to see whether that works.
    pub(crate) fn for_paths(job: &Job) -> Result<Self, String> {
        let empty: Arc<[u8]> = Arc::new([]);
        Self::new(job, &vec![empty; job.inputs.len()], 0)
    }

    fn folders(&mut self, path: &str) -> Result<NodeId, String> {
        let mut at = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = match self.child(at, name) {
                Some(node) if matches!(self.node(node), Node::Folder { .. }) => node,
                Some(_) => return Err(format!("{path} leads through a file")),
                None => self.add_folder(at, name).map_err(|_| "more files than a job may have".to_owned())?,
            };
        }
        Ok(at)
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.slots[id].node
    }

    pub(crate) fn names(&self, id: NodeId) -> u32 {
        self.slots[id].names
    }

    pub(crate) fn open(&mut self, id: NodeId) {
        self.slots[id].open += 1;
    }

    pub(crate) fn close(&mut self, id: NodeId) {
        self.slots[id].open -= 1;
        self.drop_unused(id);
    }

    fn drop_unused(&mut self, id: NodeId) {
        let slot = &mut self.slots[id];
        if slot.names == 0 && slot.open == 0 {
            match &slot.node {
                Node::File(bytes) => self.bytes -= bytes.len() as u64,
                Node::Link(target) => self.bytes -= target.len() as u64,
                Node::Folder { .. } | Node::Input(_) => {}
            }
            slot.node = Node::Link(String::new());
            self.free.push(id);
        }
    }

    pub(crate) fn child(&self, folder: NodeId, name: &str) -> Option<NodeId> {
        match self.node(folder) {
            Node::Folder { entries, .. } => entries.get(name).copied(),
            _ => None,
        }
    }

    fn entries(&mut self, folder: NodeId) -> Result<&mut BTreeMap<String, NodeId>, Errno> {
        match &mut self.slots[folder] {
            Slot { names: 0, .. } => Err(Errno::NOENT),
            Slot { node: Node::Folder { entries, .. }, .. } => Ok(entries),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Puts a new node into a folder where no such name stands.
    pub(crate) fn add(&mut self, folder: NodeId, name: &str, node: Node) -> Result<NodeId, Errno> {
        self.entries(folder)?;
        if self.slots.len() - self.free.len() >= NODES_MAX {
            self.crowded = true;
            return Err(Errno::NOSPC);
        }
        let slot = Slot { node, names: 1, open: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id] = slot;
                id
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.entries(folder)?.insert(name.to_owned(), id);
        Ok(id)
    }

    pub(crate) fn add_folder(&mut self, folder: NodeId, name: &str) -> Result<NodeId, Errno> {
        self.add(folder, name, Node::Folder { entries: BTreeMap::new(), parent: folder })
    }

    /// A symbolic link; its target counts as bytes written.
    pub(crate) fn add_link(&mut self, folder: NodeId, name: &str, target: String) -> Result<(), Errno> {
        let bytes = target.len() as u64;
        if self.grant(bytes) < bytes {
            return Err(Errno::NOSPC);
        }
        self.add(folder, name, Node::Link(target))?;
        self.bytes += bytes;
        Ok(())
    }

    pub(crate) fn link(&mut self, node: NodeId, folder: NodeId, name: &str) -> Result<(), Errno> {
        self.entries(folder)?.insert(name.to_owned(), node);
        self.slots[node].names += 1;
        Ok(())
    }

    pub(crate) fn unlink(&mut self, folder: NodeId, name: &str) -> Result<(), Errno> {
        let id = self.entries(folder)?.remove(name).ok_or(Errno::NOENT)?;
        self.slots[id].names -= 1;
        self.drop_unused(id);
        Ok(())
    }

    /// Moves a name. What stands at the new place and may be replaced is replaced.
    pub(crate) fn rename(&mut self, from: &Place, to: &Place) -> Result<(), Errno> {
        let id = from.node.ok_or(Errno::NOENT)?;
        if from.name.is_empty() || to.name.is_empty() {
            return Err(Errno::INVAL);
        }
        let is_folder = matches!(self.node(id), Node::Folder { .. });
        if (from.folder || to.folder) && !is_folder {
            return Err(Errno::NOTDIR);
        }
        if self.holds_input(id) {
            return Err(Errno::ROFS);
        }
        if is_folder && self.is_within(to.parent, id) {
            return Err(Errno::INVAL);
        }
        self.entries(to.parent)?;
        if let Some(there) = to.node {
            if there == id {
                return Ok(());
            }
            match (self.node(there), is_folder) {
                (Node::Folder { entries, .. }, true) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
                (Node::Folder { .. }, true) => {}
                (Node::Folder { .. }, false) => return Err(Errno::ISDIR),
                (_, true) => return Err(Errno::NOTDIR),
                (Node::Input(_), false) => return Err(Errno::ROFS),
                (_, false) => {}
            }
            self.unlink(to.parent, &to.name)?;
        }
        self.entries(from.parent)?.remove(&from.name);
        self.entries(to.parent)?.insert(to.name.clone(), id);
        if let Node::Folder { parent, .. } = &mut self.slots[id].node {
            *parent = to.parent;
        }
        Ok(())
    }

    /// Whether a folder is another one or below it.
    fn is_within(&self, mut at: NodeId, folder: NodeId) -> bool {
        loop {
            match self.node(at) {
                _ if at == folder => return true,
                Node::Folder { parent, .. } if at != ROOT => at = *parent,
                _ => return false,
            }
        }
    }

    fn holds_input(&self, id: NodeId) -> bool {
        let mut left = vec![id];
        while let Some(id) = left.pop() {
            match self.node(id) {
                Node::Input(_) => return true,
                Node::Folder { entries, .. } => left.extend(entries.values()),
                Node::File(_) | Node::Link(_) => {}
            }
        }
        false
    }

    /// Follows a path from a folder. `follow`: also a symbolic link at its end.
    pub(crate) fn resolve(&self, base: NodeId, path: &str, follow: bool) -> Result<Place, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let mut stack = vec![base];
        let mut left: VecDeque<String> = VecDeque::new();
        let mut links = 0;
        queue(path, &mut left)?;
        while let Some(name) = left.pop_front() {
            let at = stack[stack.len() - 1];
            let Node::Folder { entries, .. } = self.node(at) else { return Err(Errno::NOTDIR) };
            match name.as_str() {
                "" | "." => continue,
                ".." if stack.len() == 1 => return Err(Errno::NOTCAPABLE),
                ".." => {
                    stack.pop();
                    continue;
                }
                _ if name.len() > NAME_BYTES_MAX => return Err(Errno::NAMETOOLONG),
                _ => {}
            }
            let node = entries.get(&name).copied();
            let last = left.iter().all(|name| matches!(name.as_str(), "" | "."));
            let folder = last && !left.is_empty();
            if let Some(Node::Link(target)) = node.map(|node| self.node(node))
                && (!last || follow || folder)
            {
                links += 1;
                if links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                queue(target, &mut left)?;
                continue;
            }
            if last {
                if folder && node.is_some_and(|node| !matches!(self.node(node), Node::Folder { .. })) {
                    return Err(Errno::NOTDIR);
                }
                return Ok(Place { parent: at, name, node, folder });
            }
            stack.push(node.ok_or(Errno::NOENT)?);
        }
        let at = stack[stack.len() - 1];
        Ok(Place { parent: at, name: String::new(), node: Some(at), folder: true })
    }

    /// Bytes still to be had, up to `wanted`; remembers that some were refused.
    fn grant(&mut self, wanted: u64) -> u64 {
        let granted = wanted.min(self.bytes_max - self.bytes);
        self.full |= granted < wanted;
        granted
    }

    /// Appends to stdout or stderr what fits.
    pub(crate) fn print(&mut self, to_stderr: bool, bytes: &[u8]) -> Result<usize, Errno> {
        let granted = self.grant(bytes.len() as u64);
        if granted == 0 && !bytes.is_empty() {
            return Err(Errno::NOSPC);
        }
        self.bytes += granted;
        let stream = if to_stderr { &mut self.stderr } else { &mut self.stdout };
        stream.extend_from_slice(&bytes[..granted as usize]);
        Ok(granted as usize)
    }

    /// The bytes of a file from `at` on; none for a folder.
    pub(crate) fn read(&self, id: NodeId, at: u64) -> Result<&[u8], Errno> {
        let bytes: &[u8] = match self.node(id) {
            Node::Input(bytes) => bytes,
            Node::File(bytes) => bytes,
            Node::Folder { .. } => return Err(Errno::ISDIR),
            Node::Link(_) => return Err(Errno::INVAL),
        };
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[start..])
    }

    /// Bytes of a file or link target; zero for a folder.
    pub(crate) fn size(&self, id: NodeId) -> u64 {
        match self.node(id) {
            Node::Input(bytes) => bytes.len() as u64,
            Node::File(bytes) => bytes.len() as u64,
            Node::Link(target) => target.len() as u64,
            Node::Folder { .. } => 0,
        }
    }

    /// Writes what fits at `at`; a gap before it reads as zeros and counts.
    pub(crate) fn write(&mut self, id: NodeId, at: u64, bytes: &[u8]) -> Result<usize, Errno> {
        let size = self.size(id);
        if !matches!(self.node(id), Node::File(_)) {
            return Err(Errno::ROFS);
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let end = at.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        let granted = self.grant(end.saturating_sub(size));
        let end = end.min(size.saturating_add(granted));
        if end <= at {
            return Err(Errno::NOSPC);
        }
        self.bytes += end.saturating_sub(size);
        let Node::File(file) = &mut self.slots[id].node else { return Err(Errno::ROFS) };
        let (start, stop) = (at as usize, end as usize);
        if file.len() < stop {
            file.resize(stop, 0);
        }
        file[start..stop].copy_from_slice(&bytes[..stop - start]);
        Ok(stop - start)
    }

    /// Cuts a file or fills it up with zeros.
    pub(crate) fn resize(&mut self, id: NodeId, size: u64) -> Result<(), Errno> {
        let old = self.size(id);
        match self.node(id) {
            Node::File(_) => {}
            Node::Folder { .. } => return Err(Errno::ISDIR),
            _ => return Err(Errno::ROFS),
        }
        let more = size.saturating_sub(old);
        if self.grant(more) < more {
            return Err(Errno::NOSPC);
        }
        self.bytes = self.bytes - old + size;
        let Node::File(file) = &mut self.slots[id].node else { return Err(Errno::ROFS) };
        file.resize(size as usize, 0);
        file.shrink_to(size as usize * 2);
        Ok(())
    }

    /// The node at an absolute path, without following links.
    pub(crate) fn find(&self, path: &str) -> Option<NodeId> {
        path.split('/').filter(|name| !name.is_empty()).try_fold(ROOT, |at, name| self.child(at, name))
    }

    /// Every file that the job wrote at or below the given paths, by path. Symbolic links are no files.
    pub(crate) fn collect(&self, outputs: &[String]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for output in outputs {
            let mut left: Vec<(String, NodeId)> =
                self.find(output).map(|id| (output.clone(), id)).into_iter().collect();
            while let Some((path, id)) = left.pop() {
                match self.node(id) {
                    Node::File(bytes) => {
                        files.insert(path, bytes.clone());
                    }
                    Node::Folder { entries, .. } => {
                        left.extend(entries.iter().map(|(name, id)| (format!("{path}/{name}"), *id)));
                    }
                    Node::Input(_) | Node::Link(_) => {}
                }
            }
        }
        files
    }
}

/// Puts a path's segments before those that are left.
fn queue(path: &str, left: &mut VecDeque<String>) -> Result<(), Errno> {
    if path.starts_with('/') {
        return Err(Errno::NOTCAPABLE);
    }
    for name in path.rsplit('/') {
        left.push_front(name.to_owned());
    }
    Ok(())
}
