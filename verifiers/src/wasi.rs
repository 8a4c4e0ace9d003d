//! WASI preview 1 for jobs: every function answers from the job alone.
//!
//! Time stands still, random bytes follow from the job, the network does not exist. A call costs fuel
//! ([`CALL_FUEL`] and one for every byte moved or entry visited), so that no host work is free.
//!
//! Source: the `wasi_snapshot_preview1` witx; error numbers and struct layouts are its own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;
use wasmtime::{Caller, Extern, Linker, Memory, Trap};

use crate::filesystem::{FileSystem, Node, NodeId, Place, ROOT};

/// Fuel of a host call before anything is moved.
pub(crate) const CALL_FUEL: u64 = 100;
/// Fuel that is used up before the wall clock is looked at, and host calls.
pub(crate) const FUEL_INTERVAL: u64 = 1_000_000;
const UNWATCHED_CALLS_MAX: u32 = 16;
/// The only wall-clock time that a job ever sees: 2000-01-01, in nanoseconds since 1970.
const REALTIME_NS: u64 = 946_684_800_000_000_000;
/// Open descriptors at most.
const DESCRIPTORS_MAX: usize = 1024;
/// Entries of one scatter or gather list, and subscriptions of one poll.
const LIST_MAX: u32 = 1024;
/// Entries of folder listings that open descriptors hold together.
const LISTED_MAX: usize = 131_072;
/// Descriptor of the root folder.
const ROOT_FD: u32 = 3;

const RIGHT_READ: u64 = 1 << 1;
const RIGHT_WRITE: u64 = 1 << 6;
const RIGHTS_ALL: u64 = (1 << 30) - 1;
const FLAG_APPEND: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(u32);

impl Errno {
    pub(crate) const BADF: Self = Self(8);
    pub(crate) const EXIST: Self = Self(20);
    pub(crate) const FAULT: Self = Self(21);
    pub(crate) const FBIG: Self = Self(22);
    pub(crate) const ILSEQ: Self = Self(25);
    pub(crate) const INVAL: Self = Self(28);
    pub(crate) const ISDIR: Self = Self(31);
    pub(crate) const LOOP: Self = Self(32);
    pub(crate) const MFILE: Self = Self(33);
    pub(crate) const NAMETOOLONG: Self = Self(37);
    pub(crate) const NOENT: Self = Self(44);
    pub(crate) const NOSPC: Self = Self(51);
    pub(crate) const NOSYS: Self = Self(52);
    pub(crate) const NOTDIR: Self = Self(54);
    pub(crate) const NOTEMPTY: Self = Self(55);
    pub(crate) const NOTSUP: Self = Self(58);
    pub(crate) const PERM: Self = Self(63);
    pub(crate) const ROFS: Self = Self(69);
    pub(crate) const SPIPE: Self = Self(70);
    pub(crate) const NOTCAPABLE: Self = Self(76);
}

/// The job called `proc_exit`.
#[derive(Debug, thiserror::Error)]
#[error("exit {0}")]
pub(crate) struct Exit(pub(crate) i32);

/// The wall clock stopped the job.
#[derive(Debug, thiserror::Error)]
#[error("the wall clock stopped the job")]
pub(crate) struct WallTime;

/// A host call without a memory to work on.
#[derive(Debug, thiserror::Error)]
#[error("the module exports no memory named memory")]
pub(crate) struct NoMemory;

/// The operator's own limit stopped the job.
#[derive(Debug, thiserror::Error)]
#[error("{what} of {most} that this operator allows is used up")]
pub(crate) struct OperatorStop {
    pub(crate) what: &'static str,
    pub(crate) most: u64,
}

#[derive(Debug)]
enum Descriptor {
    Stdin { at: usize },
    Stdout,
    Stderr,
    Node { node: NodeId, at: u64, read: bool, write: bool, append: bool, listing: Vec<(String, NodeId)> },
}

/// What a store holds: the job's world.
pub(crate) struct Host {
    pub(crate) fs: FileSystem,
    descriptors: BTreeMap<u32, Descriptor>,
    args: Vec<String>,
    env: Vec<String>,
    stdin: Arc<[u8]>,
    random: ChaCha20Rng,
    cost: u64,
    memory: Option<Memory>,
    /// The job asked for the time or for random bytes: elsewhere it got others.
    pub(crate) asked_the_host: bool,
    /// A descriptor was refused.
    pub(crate) out_of_descriptors: bool,
    /// Set where the operator allows fewer output bytes than the deal.
    pub(crate) output_stop: Option<u64>,
    pub(crate) limiter: crate::limiter::Limiter,
    /// When the wall clock stops the job.
    pub(crate) deadline: Option<Instant>,
    /// Set when nobody wants to know any more.
    pub(crate) stop: Option<Arc<AtomicBool>>,
    /// Host calls and their cost since the clock was looked at.
    unwatched: (u32, u64),
}

impl Host {
    pub(crate) fn new(
        fs: FileSystem,
        args: Vec<String>,
        env: Vec<String>,
        stdin: Arc<[u8]>,
        seed: [u8; 32],
        limiter: crate::limiter::Limiter,
    ) -> Self {
        let root = Descriptor::Node { node: ROOT, at: 0, read: true, write: false, append: false, listing: Vec::new() };
        let descriptors =
            [(0, Descriptor::Stdin { at: 0 }), (1, Descriptor::Stdout), (2, Descriptor::Stderr), (ROOT_FD, root)];
        Self {
            fs,
            descriptors: descriptors.into(),
            args,
            env,
            stdin,
            random: ChaCha20Rng::from_seed(seed),
            cost: 0,
            memory: None,
            asked_the_host: false,
            out_of_descriptors: false,
            output_stop: None,
            limiter,
            deadline: None,
            stop: None,
            unwatched: (0, 0),
        }
    }
}

impl Host {
    /// Whether nobody wants to know any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// Whether the job's time is over.
    pub(crate) fn is_late(&self) -> bool {
        self.is_stopped() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Looks at the clock now and then: a job that calls the host often never uses up one interval of fuel.
    fn watch(&mut self) -> Result<(), WallTime> {
        let (calls, cost) = &mut self.unwatched;
        *calls += 1;
        *cost = cost.saturating_add(self.cost);
        if *calls < UNWATCHED_CALLS_MAX && *cost < FUEL_INTERVAL {
            return Ok(());
        }
        self.unwatched = (0, 0);
        if self.is_late() { Err(WallTime) } else { Ok(()) }
    }
}

type Done = Result<(), Errno>;

/// Runs one host function on the job's memory and takes its price.
fn enter(caller: &mut Caller<'_, Host>, call: impl FnOnce(&mut Host, &mut [u8]) -> Done) -> wasmtime::Result<u32> {
    let memory = match caller.data().memory {
        Some(memory) => memory,
        None => match caller.get_export("memory") {
            Some(Extern::Memory(memory)) => memory,
            _ => return Err(NoMemory.into()),
        },
    };
    let (bytes, host) = memory.data_and_store_mut(&mut *caller);
    host.memory = Some(memory);
    host.cost = CALL_FUEL;
    let done = call(host, bytes);
    let cost = host.cost;
    if let (true, Some(most)) = (host.fs.full, host.output_stop) {
        return Err(OperatorStop { what: "output bytes", most }.into());
    }
    // Only an engine that meters nothing, the peer in benches, has no fuel to ask for.
    let fuel = caller.get_fuel().unwrap_or(u64::MAX);
    if fuel == u64::MAX {
        return Ok(done.map_or_else(|errno| errno.0, |()| 0));
    }
    if fuel < cost {
        caller.set_fuel(0)?;
        return Err(Trap::OutOfFuel.into());
    }
    caller.set_fuel(fuel - cost)?;
    caller.data_mut().watch()?;
    Ok(done.map_or_else(|errno| errno.0, |()| 0))
}

macro_rules! functions {
    ($linker:ident, $($name:ident($($arg:ident: $ty:ty),*);)*) => {
        $($linker.func_wrap(
            "wasi_snapshot_preview1",
            stringify!($name),
            |mut caller: Caller<'_, Host>, $($arg: $ty),*| enter(&mut caller, |host, memory| host.$name(memory, $($arg),*)),
        )?;)*
    };
}

/// Defines every function of WASI preview 1.
pub(crate) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    functions! { linker,
        args_get(list: u32, bytes: u32);
        args_sizes_get(count: u32, size: u32);
        environ_get(list: u32, bytes: u32);
        environ_sizes_get(count: u32, size: u32);
        clock_res_get(id: u32, out: u32);
        clock_time_get(id: u32, precision: u64, out: u32);
        fd_advise(fd: u32, offset: u64, length: u64, advice: u32);
        fd_allocate(fd: u32, offset: u64, length: u64);
        fd_close(fd: u32);
        fd_datasync(fd: u32);
        fd_fdstat_get(fd: u32, out: u32);
        fd_fdstat_set_flags(fd: u32, flags: u32);
        fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64);
        fd_filestat_get(fd: u32, out: u32);
        fd_filestat_set_size(fd: u32, size: u64);
        fd_filestat_set_times(fd: u32, atim: u64, mtim: u64, flags: u32);
        fd_pread(fd: u32, list: u32, count: u32, offset: u64, out: u32);
        fd_prestat_get(fd: u32, out: u32);
        fd_prestat_dir_name(fd: u32, out: u32, length: u32);
        fd_pwrite(fd: u32, list: u32, count: u32, offset: u64, out: u32);
        fd_read(fd: u32, list: u32, count: u32, out: u32);
        fd_readdir(fd: u32, buffer: u32, length: u32, cookie: u64, out: u32);
        fd_renumber(from: u32, to: u32);
        fd_seek(fd: u32, offset: i64, whence: u32, out: u32);
        fd_sync(fd: u32);
        fd_tell(fd: u32, out: u32);
        fd_write(fd: u32, list: u32, count: u32, out: u32);
        path_create_directory(fd: u32, path: u32, length: u32);
        path_filestat_get(fd: u32, flags: u32, path: u32, length: u32, out: u32);
        path_filestat_set_times(fd: u32, flags: u32, path: u32, length: u32, atim: u64, mtim: u64, set: u32);
        path_link(fd: u32, flags: u32, path: u32, length: u32, to_fd: u32, to: u32, to_length: u32);
        path_open(fd: u32, look: u32, path: u32, length: u32, flags: u32, rights: u64, inherit: u64, fd_flags: u32, out: u32);
        path_readlink(fd: u32, path: u32, length: u32, buffer: u32, size: u32, out: u32);
        path_remove_directory(fd: u32, path: u32, length: u32);
        path_rename(fd: u32, path: u32, length: u32, to_fd: u32, to: u32, to_length: u32);
        path_symlink(target: u32, target_length: u32, fd: u32, path: u32, length: u32);
        path_unlink_file(fd: u32, path: u32, length: u32);
        poll_oneoff(subscriptions: u32, events: u32, count: u32, out: u32);
        proc_raise(signal: u32);
        sched_yield();
        random_get(out: u32, length: u32);
        sock_accept(fd: u32, flags: u32, out: u32);
        sock_recv(fd: u32, list: u32, count: u32, flags: u32, size: u32, out_flags: u32);
        sock_send(fd: u32, list: u32, count: u32, flags: u32, size: u32);
        sock_shutdown(fd: u32, how: u32);
    }
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(Exit(code.cast_signed()).into())
    })?;
    Ok(())
}

fn slice(memory: &[u8], at: u32, length: u32) -> Result<&[u8], Errno> {
    let at = at as usize;
    memory.get(at..at + length as usize).ok_or(Errno::FAULT)
}

fn slice_mut(memory: &mut [u8], at: u32, length: u32) -> Result<&mut [u8], Errno> {
    let at = at as usize;
    memory.get_mut(at..at + length as usize).ok_or(Errno::FAULT)
}

fn put(memory: &mut [u8], at: u32, bytes: &[u8]) -> Done {
    slice_mut(memory, at, bytes.len() as u32)?.copy_from_slice(bytes);
    Ok(())
}

fn put_u32(memory: &mut [u8], at: u32, value: u32) -> Done {
    put(memory, at, &value.to_le_bytes())
}

fn put_u64(memory: &mut [u8], at: u32, value: u64) -> Done {
    put(memory, at, &value.to_le_bytes())
}

fn get_u32(memory: &[u8], at: u32) -> Result<u32, Errno> {
    let bytes = slice(memory, at, 4)?;
    Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// The parts of a scatter or gather list.
fn parts(memory: &[u8], list: u32, count: u32) -> Result<Vec<(u32, u32)>, Errno> {
    if count > LIST_MAX {
        return Err(Errno::INVAL);
    }
    let entry = |index: u32| {
        let at = list.checked_add(index * 8).ok_or(Errno::FAULT)?;
        let second = at.checked_add(4).ok_or(Errno::FAULT)?;
        let part = (get_u32(memory, at)?, get_u32(memory, second)?);
        slice(memory, part.0, part.1)?;
        Ok(part)
    };
    (0..count).map(entry).collect()
}

/// Spreads bytes over a scatter list; gives how many fitted.
fn scatter(memory: &mut [u8], parts: &[(u32, u32)], mut bytes: &[u8]) -> Result<u32, Errno> {
    let mut moved = 0;
    for (at, length) in parts {
        let part = bytes.len().min(*length as usize).min((u32::MAX - moved) as usize);
        put(memory, *at, &bytes[..part])?;
        bytes = &bytes[part..];
        moved += part as u32;
    }
    Ok(moved)
}

/// Type and layout of `filestat`: times are zero.
fn filestat(memory: &mut [u8], out: u32, kind: u8, node: u64, names: u64, size: u64) -> Done {
    let mut stat = [0; 64];
    stat[..8].copy_from_slice(&1u64.to_le_bytes());
    stat[8..16].copy_from_slice(&node.to_le_bytes());
    stat[16] = kind;
    stat[24..32].copy_from_slice(&names.to_le_bytes());
    stat[32..40].copy_from_slice(&size.to_le_bytes());
    put(memory, out, &stat)
}

const CHARACTER_DEVICE: u8 = 2;
const DIRECTORY: u8 = 3;
const REGULAR_FILE: u8 = 4;
const SYMBOLIC_LINK: u8 = 7;

const fn file_type(node: &Node) -> u8 {
    match node {
        Node::Folder { .. } => DIRECTORY,
        Node::Input(_) | Node::File(_) => REGULAR_FILE,
        Node::Link(_) => SYMBOLIC_LINK,
    }
}

#[allow(clippy::too_many_arguments)]
impl Host {
    fn strings_get(&mut self, memory: &mut [u8], strings: &[String], list: u32, bytes: u32) -> Done {
        let (mut list, mut at) = (list, bytes);
        for text in strings {
            put_u32(memory, list, at)?;
            put(memory, at, text.as_bytes())?;
            at = at.checked_add(text.len() as u32).ok_or(Errno::FAULT)?;
            put(memory, at, &[0])?;
            at = at.checked_add(1).ok_or(Errno::FAULT)?;
            list = list.checked_add(4).ok_or(Errno::FAULT)?;
            self.cost += text.len() as u64 + 1;
        }
        Ok(())
    }

    fn sizes_get(memory: &mut [u8], strings: &[String], count: u32, size: u32) -> Done {
        put_u32(memory, count, strings.len() as u32)?;
        put_u32(memory, size, strings.iter().map(|text| text.len() as u32 + 1).sum())
    }

    fn args_get(&mut self, memory: &mut [u8], list: u32, bytes: u32) -> Done {
        let strings = std::mem::take(&mut self.args);
        let done = self.strings_get(memory, &strings, list, bytes);
        self.args = strings;
        done
    }

    fn args_sizes_get(&mut self, memory: &mut [u8], count: u32, size: u32) -> Done {
        Self::sizes_get(memory, &self.args, count, size)
    }

    fn environ_get(&mut self, memory: &mut [u8], list: u32, bytes: u32) -> Done {
        let strings = std::mem::take(&mut self.env);
        let done = self.strings_get(memory, &strings, list, bytes);
        self.env = strings;
        done
    }

    fn environ_sizes_get(&mut self, memory: &mut [u8], count: u32, size: u32) -> Done {
        Self::sizes_get(memory, &self.env, count, size)
    }

    fn clock_res_get(&mut self, memory: &mut [u8], id: u32, out: u32) -> Done {
        if id > 3 {
            return Err(Errno::INVAL);
        }
        put_u64(memory, out, 1)
    }

    fn clock_time_get(&mut self, memory: &mut [u8], id: u32, _precision: u64, out: u32) -> Done {
        let now = match id {
            0 => REALTIME_NS,
            1..=3 => 0,
            _ => return Err(Errno::INVAL),
        };
        self.asked_the_host = true;
        put_u64(memory, out, now)
    }

    fn descriptor(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        self.descriptors.get_mut(&fd).ok_or(Errno::BADF)
    }

    /// The node behind a descriptor; standard streams have none.
    fn node(&mut self, fd: u32) -> Result<NodeId, Errno> {
        match self.descriptor(fd)? {
            Descriptor::Node { node, .. } => Ok(*node),
            _ => Err(Errno::INVAL),
        }
    }

    /// The folder behind a descriptor.
    fn folder(&mut self, fd: u32) -> Result<NodeId, Errno> {
        match self.descriptor(fd)? {
            Descriptor::Node { node, .. } => {
                let node = *node;
                if matches!(self.fs.node(node), Node::Folder { .. }) { Ok(node) } else { Err(Errno::NOTDIR) }
            }
            _ => Err(Errno::NOTDIR),
        }
    }

    fn text(&mut self, memory: &[u8], at: u32, length: u32) -> Result<String, Errno> {
        let bytes = slice(memory, at, length)?;
        self.cost += u64::from(length);
        let text = std::str::from_utf8(bytes).map_err(|_| Errno::ILSEQ)?;
        if text.contains('\0') { Err(Errno::INVAL) } else { Ok(text.to_owned()) }
    }

    fn place(&mut self, memory: &[u8], fd: u32, path: u32, length: u32, follow: bool) -> Result<Place, Errno> {
        let folder = self.folder(fd)?;
        let path = self.text(memory, path, length)?;
        self.fs.resolve(folder, &path, follow)
    }

    /// Where something new is to stand.
    fn vacant(&mut self, memory: &[u8], fd: u32, path: u32, length: u32) -> Result<Place, Errno> {
        let place = self.place(memory, fd, path, length, false)?;
        if place.node.is_some() { Err(Errno::EXIST) } else { Ok(place) }
    }

    fn fd_advise(&mut self, _: &mut [u8], fd: u32, _offset: u64, _length: u64, advice: u32) -> Done {
        self.node(fd)?;
        if advice > 5 { Err(Errno::INVAL) } else { Ok(()) }
    }

    fn fd_allocate(&mut self, _: &mut [u8], fd: u32, offset: u64, length: u64) -> Done {
        let Descriptor::Node { node, write, .. } = self.descriptor(fd)? else { return Err(Errno::INVAL) };
        let (node, write) = (*node, *write);
        if !write {
            return Err(Errno::BADF);
        }
        let end = offset.checked_add(length).ok_or(Errno::FBIG)?;
        let size = self.fs.size(node);
        if end > size {
            self.fs.resize(node, end)?;
            self.cost += end - size;
        }
        Ok(())
    }

    fn fd_close(&mut self, _: &mut [u8], fd: u32) -> Done {
        if let Descriptor::Node { node, .. } = self.descriptors.remove(&fd).ok_or(Errno::BADF)? {
            self.fs.close(node);
        }
        Ok(())
    }

    fn fd_datasync(&mut self, _: &mut [u8], fd: u32) -> Done {
        self.descriptor(fd).map(|_| ())
    }

    fn fd_sync(&mut self, _: &mut [u8], fd: u32) -> Done {
        self.descriptor(fd).map(|_| ())
    }

    fn fd_fdstat_get(&mut self, memory: &mut [u8], fd: u32, out: u32) -> Done {
        let (kind, flags, rights) = match self.descriptor(fd)? {
            // With the right to seek, so that no C library takes it for a terminal.
            Descriptor::Stdin { .. } => (CHARACTER_DEVICE, 0, RIGHTS_ALL & !RIGHT_WRITE),
            Descriptor::Stdout | Descriptor::Stderr => (CHARACTER_DEVICE, 0, RIGHTS_ALL & !RIGHT_READ),
            Descriptor::Node { node, read, write, append, .. } => {
                let without = |have: bool, right: u64| if have { 0 } else { right };
                let (node, flags) = (*node, u16::from(*append));
                let rights = RIGHTS_ALL & !without(*read, RIGHT_READ) & !without(*write, RIGHT_WRITE);
                (file_type(self.fs.node(node)), flags, rights)
            }
        };
        // What is opened below a folder may have every right, whatever the folder's own descriptor has.
        let mut stat = [0; 24];
        stat[0] = kind;
        stat[2..4].copy_from_slice(&flags.to_le_bytes());
        stat[8..16].copy_from_slice(&rights.to_le_bytes());
        stat[16..24].copy_from_slice(&RIGHTS_ALL.to_le_bytes());
        put(memory, out, &stat)
    }

    fn fd_fdstat_set_flags(&mut self, _: &mut [u8], fd: u32, flags: u32) -> Done {
        if let Descriptor::Node { append, .. } = self.descriptor(fd)? {
            *append = flags & FLAG_APPEND != 0;
        }
        Ok(())
    }

    fn fd_fdstat_set_rights(&mut self, _: &mut [u8], fd: u32, base: u64, _inheriting: u64) -> Done {
        if let Descriptor::Node { read, write, .. } = self.descriptor(fd)? {
            *read &= base & RIGHT_READ != 0;
            *write &= base & RIGHT_WRITE != 0;
        }
        Ok(())
    }

    fn fd_filestat_get(&mut self, memory: &mut [u8], fd: u32, out: u32) -> Done {
        match self.descriptor(fd)? {
            Descriptor::Node { node, .. } => {
                let node = *node;
                self.node_stat(memory, node, out)
            }
            _ => filestat(memory, out, CHARACTER_DEVICE, 0, 1, 0),
        }
    }

    fn node_stat(&self, memory: &mut [u8], node: NodeId, out: u32) -> Done {
        let (kind, names) = (file_type(self.fs.node(node)), u64::from(self.fs.names(node)));
        filestat(memory, out, kind, node as u64 + 1, names, self.fs.size(node))
    }

    fn fd_filestat_set_size(&mut self, _: &mut [u8], fd: u32, size: u64) -> Done {
        let Descriptor::Node { node, write, .. } = self.descriptor(fd)? else { return Err(Errno::INVAL) };
        let (node, write) = (*node, *write);
        if !write {
            return Err(Errno::BADF);
        }
        let old = self.fs.size(node);
        self.fs.resize(node, size)?;
        self.cost += size.saturating_sub(old);
        Ok(())
    }

    fn fd_filestat_set_times(&mut self, _: &mut [u8], fd: u32, _atim: u64, _mtim: u64, _flags: u32) -> Done {
        self.descriptor(fd).map(|_| ())
    }

    fn fd_prestat_get(&mut self, memory: &mut [u8], fd: u32, out: u32) -> Done {
        if fd != ROOT_FD || self.node(fd)? != ROOT {
            return Err(Errno::BADF);
        }
        put_u32(memory, out, 0)?;
        put_u32(memory, out.checked_add(4).ok_or(Errno::FAULT)?, 1)
    }

    fn fd_prestat_dir_name(&mut self, memory: &mut [u8], fd: u32, out: u32, length: u32) -> Done {
        if fd != ROOT_FD || self.node(fd)? != ROOT {
            return Err(Errno::BADF);
        }
        if length < 1 {
            return Err(Errno::NAMETOOLONG);
        }
        put(memory, out, b"/")
    }

    fn read_into(
        &mut self,
        memory: &mut [u8],
        fd: u32,
        list: u32,
        count: u32,
        offset: Option<u64>,
    ) -> Result<u32, Errno> {
        let parts = parts(memory, list, count)?;
        let moved = match self.descriptors.get_mut(&fd).ok_or(Errno::BADF)? {
            Descriptor::Stdin { at } if offset.is_none() => {
                let moved = scatter(memory, &parts, &self.stdin[*at..])?;
                *at += moved as usize;
                moved
            }
            Descriptor::Stdin { .. } => return Err(Errno::SPIPE),
            Descriptor::Stdout | Descriptor::Stderr | Descriptor::Node { read: false, .. } => return Err(Errno::BADF),
            Descriptor::Node { node, at, .. } => {
                let moved = scatter(memory, &parts, self.fs.read(*node, offset.unwrap_or(*at))?)?;
                if offset.is_none() {
                    *at = at.saturating_add(u64::from(moved));
                }
                moved
            }
        };
        self.cost += u64::from(moved) + u64::from(count);
        Ok(moved)
    }

    fn fd_read(&mut self, memory: &mut [u8], fd: u32, list: u32, count: u32, out: u32) -> Done {
        let moved = self.read_into(memory, fd, list, count, None)?;
        put_u32(memory, out, moved)
    }

    fn fd_pread(&mut self, memory: &mut [u8], fd: u32, list: u32, count: u32, offset: u64, out: u32) -> Done {
        let moved = self.read_into(memory, fd, list, count, Some(offset))?;
        put_u32(memory, out, moved)
    }

    fn write_from(&mut self, memory: &[u8], fd: u32, list: u32, count: u32, offset: Option<u64>) -> Result<u32, Errno> {
        let parts = parts(memory, list, count)?;
        let mut moved: u32 = 0;
        for (part, length) in parts {
            let bytes = &slice(memory, part, length)?[..length.min(u32::MAX - moved) as usize];
            let written = match self.descriptors.get_mut(&fd).ok_or(Errno::BADF)? {
                Descriptor::Stdin { .. } | Descriptor::Node { write: false, .. } => return Err(Errno::BADF),
                stream @ (Descriptor::Stdout | Descriptor::Stderr) => {
                    if offset.is_some() {
                        return Err(Errno::SPIPE);
                    }
                    self.fs.print(matches!(stream, Descriptor::Stderr), bytes)
                }
                Descriptor::Node { node, at, append, .. } => {
                    let start = match offset {
                        Some(offset) => offset.checked_add(u64::from(moved)).ok_or(Errno::FBIG)?,
                        None if *append => self.fs.size(*node),
                        None => *at,
                    };
                    let written = self.fs.write(*node, start, bytes);
                    if let (Ok(written), None) = (&written, offset) {
                        *at = start + *written as u64;
                    }
                    written
                }
            };
            match written {
                Ok(written) => {
                    moved += written as u32;
                    if written < bytes.len() {
                        break;
                    }
                }
                // What was written before is reported; the error comes with the next call.
                Err(_) if moved > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        self.cost += u64::from(moved) + u64::from(count);
        Ok(moved)
    }

    fn fd_write(&mut self, memory: &mut [u8], fd: u32, list: u32, count: u32, out: u32) -> Done {
        let moved = self.write_from(memory, fd, list, count, None)?;
        put_u32(memory, out, moved)
    }

    fn fd_pwrite(&mut self, memory: &mut [u8], fd: u32, list: u32, count: u32, offset: u64, out: u32) -> Done {
        let moved = self.write_from(memory, fd, list, count, Some(offset))?;
        put_u32(memory, out, moved)
    }

    fn fd_readdir(&mut self, memory: &mut [u8], fd: u32, buffer: u32, length: u32, cookie: u64, out: u32) -> Done {
        slice(memory, buffer, length)?;
        let folder = self.folder(fd)?;
        if cookie == 0 {
            let Node::Folder { entries, parent } = self.fs.node(folder) else { return Err(Errno::NOTDIR) };
            let mut fresh = vec![(".".to_owned(), folder), ("..".to_owned(), *parent)];
            fresh.extend(entries.iter().map(|(name, node)| (name.clone(), *node)));
            self.cost += fresh.len() as u64;
            let listed = |descriptor: &Descriptor| match descriptor {
                Descriptor::Node { listing, .. } => listing.len(),
                _ => 0,
            };
            if self.descriptors.values().map(listed).sum::<usize>() + fresh.len() > LISTED_MAX {
                self.out_of_descriptors = true;
                return Err(Errno::MFILE);
            }
            if let Some(Descriptor::Node { listing, .. }) = self.descriptors.get_mut(&fd) {
                *listing = fresh;
            }
        }
        let Some(Descriptor::Node { listing, .. }) = self.descriptors.get(&fd) else { return Err(Errno::BADF) };
        let mut used = 0;
        let start = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (index, (name, node)) in listing.iter().enumerate().skip(start) {
            let mut entry = Vec::with_capacity(24 + name.len());
            entry.extend_from_slice(&(index as u64 + 1).to_le_bytes());
            entry.extend_from_slice(&(*node as u64 + 1).to_le_bytes());
            entry.extend_from_slice(&(name.len() as u32).to_le_bytes());
            entry.extend_from_slice(&u32::from(file_type(self.fs.node(*node))).to_le_bytes());
            entry.extend_from_slice(name.as_bytes());
            entry.truncate((length - used) as usize);
            put(memory, buffer + used, &entry)?;
            used += entry.len() as u32;
            if used == length {
                break;
            }
        }
        self.cost += u64::from(used);
        put_u32(memory, out, used)
    }

    fn fd_renumber(&mut self, memory: &mut [u8], from: u32, to: u32) -> Done {
        self.descriptor(from)?;
        self.descriptor(to)?;
        if from != to {
            self.fd_close(memory, to)?;
            let descriptor = self.descriptors.remove(&from).ok_or(Errno::BADF)?;
            self.descriptors.insert(to, descriptor);
        }
        Ok(())
    }

    fn fd_seek(&mut self, memory: &mut [u8], fd: u32, offset: i64, whence: u32, out: u32) -> Done {
        let node = match self.descriptor(fd)? {
            Descriptor::Node { node, .. } => *node,
            _ => return Err(Errno::SPIPE),
        };
        let size = self.fs.size(node);
        let is_folder = matches!(self.fs.node(node), Node::Folder { .. });
        let Descriptor::Node { at, .. } = self.descriptor(fd)? else { return Err(Errno::SPIPE) };
        let base = match whence {
            0 => 0,
            1 => *at,
            2 => size,
            _ => return Err(Errno::INVAL),
        };
        let target = base.checked_add_signed(offset).filter(|target| *target <= i64::MAX as u64);
        let target = target.ok_or(Errno::INVAL)?;
        if is_folder {
            return Err(Errno::BADF);
        }
        *at = target;
        put_u64(memory, out, target)
    }

    fn fd_tell(&mut self, memory: &mut [u8], fd: u32, out: u32) -> Done {
        self.fd_seek(memory, fd, 0, 1, out)
    }

    fn path_create_directory(&mut self, memory: &mut [u8], fd: u32, path: u32, length: u32) -> Done {
        let place = self.vacant(memory, fd, path, length)?;
        self.fs.add_folder(place.parent, &place.name).map(|_| ())
    }

    fn path_filestat_get(&mut self, memory: &mut [u8], fd: u32, flags: u32, path: u32, length: u32, out: u32) -> Done {
        let place = self.place(memory, fd, path, length, flags & 1 != 0)?;
        self.node_stat(memory, place.node.ok_or(Errno::NOENT)?, out)
    }

    fn path_filestat_set_times(
        &mut self,
        memory: &mut [u8],
        fd: u32,
        flags: u32,
        path: u32,
        length: u32,
        _atim: u64,
        _mtim: u64,
        _set: u32,
    ) -> Done {
        self.place(memory, fd, path, length, flags & 1 != 0)?.node.map(|_| ()).ok_or(Errno::NOENT)
    }

    fn path_link(
        &mut self,
        memory: &mut [u8],
        fd: u32,
        flags: u32,
        path: u32,
        length: u32,
        to_fd: u32,
        to: u32,
        to_length: u32,
    ) -> Done {
        let from = self.place(memory, fd, path, length, flags & 1 != 0)?.node.ok_or(Errno::NOENT)?;
        let place = self.vacant(memory, to_fd, to, to_length)?;
        match self.fs.node(from) {
            Node::Folder { .. } => Err(Errno::PERM),
            Node::Input(_) => Err(Errno::ROFS),
            _ if place.folder => Err(Errno::NOENT),
            _ => self.fs.link(from, place.parent, &place.name),
        }
    }

    fn path_open(
        &mut self,
        memory: &mut [u8],
        fd: u32,
        look: u32,
        path: u32,
        length: u32,
        flags: u32,
        rights: u64,
        _inherit: u64,
        fd_flags: u32,
        out: u32,
    ) -> Done {
        let (create, folder_only, exclusive, truncate) =
            (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 8 != 0);
        let (read, write) = (rights & RIGHT_READ != 0, rights & RIGHT_WRITE != 0);
        slice(memory, out, 4)?;
        let place = self.place(memory, fd, path, length, look & 1 != 0 && !(create && exclusive))?;
        if self.descriptors.len() >= DESCRIPTORS_MAX {
            self.out_of_descriptors = true;
            return Err(Errno::MFILE);
        }
        let node = match place.node {
            Some(_) if create && exclusive => return Err(Errno::EXIST),
            Some(node) => node,
            None if !create => return Err(Errno::NOENT),
            None if place.folder => return Err(Errno::ISDIR),
            None if folder_only => return Err(Errno::INVAL),
            None => self.fs.add(place.parent, &place.name, Node::File(Vec::new()))?,
        };
        match self.fs.node(node) {
            // A C library asks for every right when it opens a folder; only what would change bytes is refused.
            Node::Folder { .. } if truncate || (write && !folder_only) => return Err(Errno::ISDIR),
            Node::Folder { .. } => {}
            _ if folder_only => return Err(Errno::NOTDIR),
            Node::Link(_) => return Err(Errno::LOOP),
            Node::Input(_) if write || truncate => return Err(Errno::ROFS),
            Node::Input(_) | Node::File(_) => {}
        }
        if truncate {
            self.fs.resize(node, 0)?;
        }
        self.fs.open(node);
        let free = (0..).find(|fd| !self.descriptors.contains_key(fd)).ok_or(Errno::MFILE)?;
        let append = fd_flags & FLAG_APPEND != 0;
        self.descriptors.insert(free, Descriptor::Node { node, at: 0, read, write, append, listing: Vec::new() });
        put_u32(memory, out, free)
    }

    fn path_readlink(
        &mut self,
        memory: &mut [u8],
        fd: u32,
        path: u32,
        length: u32,
        buffer: u32,
        size: u32,
        out: u32,
    ) -> Done {
        let place = self.place(memory, fd, path, length, false)?;
        let Node::Link(target) = self.fs.node(place.node.ok_or(Errno::NOENT)?) else { return Err(Errno::INVAL) };
        let moved = target.len().min(size as usize);
        put(memory, buffer, &target.as_bytes()[..moved])?;
        self.cost += moved as u64;
        put_u32(memory, out, moved as u32)
    }

    fn path_remove_directory(&mut self, memory: &mut [u8], fd: u32, path: u32, length: u32) -> Done {
        let place = self.place(memory, fd, path, length, false)?;
        match self.fs.node(place.node.ok_or(Errno::NOENT)?) {
            _ if place.name.is_empty() => Err(Errno::INVAL),
            Node::Folder { entries, .. } if entries.is_empty() => self.fs.unlink(place.parent, &place.name),
            Node::Folder { .. } => Err(Errno::NOTEMPTY),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn path_rename(
        &mut self,
        memory: &mut [u8],
        fd: u32,
        path: u32,
        length: u32,
        to_fd: u32,
        to: u32,
        to_length: u32,
    ) -> Done {
        let from = self.place(memory, fd, path, length, false)?;
        let to = self.place(memory, to_fd, to, to_length, false)?;
        self.fs.rename(&from, &to)
    }

    fn path_symlink(
        &mut self,
        memory: &mut [u8],
        target: u32,
        target_length: u32,
        fd: u32,
        path: u32,
        length: u32,
    ) -> Done {
        let target = self.text(memory, target, target_length)?;
        if target.is_empty() {
            return Err(Errno::NOENT);
        }
        if target.starts_with('/') {
            return Err(Errno::NOTCAPABLE);
        }
        if target.len() > 4096 {
            return Err(Errno::NAMETOOLONG);
        }
        let place = self.vacant(memory, fd, path, length)?;
        if place.folder {
            return Err(Errno::NOENT);
        }
        self.fs.add_link(place.parent, &place.name, target)
    }

    fn path_unlink_file(&mut self, memory: &mut [u8], fd: u32, path: u32, length: u32) -> Done {
        let place = self.place(memory, fd, path, length, false)?;
        match self.fs.node(place.node.ok_or(Errno::NOENT)?) {
            Node::Folder { .. } => Err(Errno::ISDIR),
            Node::Input(_) => Err(Errno::ROFS),
            _ if place.folder => Err(Errno::NOTDIR),
            _ => self.fs.unlink(place.parent, &place.name),
        }
    }

    /// Everything is ready at once: time stands still, and reading or writing never waits.
    fn poll_oneoff(&mut self, memory: &mut [u8], subscriptions: u32, events: u32, count: u32, out: u32) -> Done {
        if count == 0 || count > LIST_MAX {
            return Err(Errno::INVAL);
        }
        let wanted = slice(memory, subscriptions, count * 48)?.to_vec();
        for (index, subscription) in wanted.chunks_exact(48).enumerate() {
            let kind = subscription[8];
            let error = match kind {
                0 => 0,
                1 | 2 => {
                    let fd = [subscription[16], subscription[17], subscription[18], subscription[19]];
                    if self.descriptors.contains_key(&u32::from_le_bytes(fd)) { 0 } else { Errno::BADF.0 }
                }
                _ => Errno::INVAL.0,
            };
            let mut event = [0; 32];
            event[..8].copy_from_slice(&subscription[..8]);
            event[8..10].copy_from_slice(&(error as u16).to_le_bytes());
            event[10] = kind;
            // Bytes that can be read or written: one is enough to try.
            event[16] = u8::from(kind != 0);
            put(memory, events.checked_add(index as u32 * 32).ok_or(Errno::FAULT)?, &event)?;
        }
        self.cost += u64::from(count) * 48;
        put_u32(memory, out, count)
    }

    fn proc_raise(&mut self, _: &mut [u8], _signal: u32) -> Done {
        Err(Errno::NOSYS)
    }

    fn sched_yield(&mut self, _: &mut [u8]) -> Done {
        Ok(())
    }

    fn random_get(&mut self, memory: &mut [u8], out: u32, length: u32) -> Done {
        self.asked_the_host = true;
        self.random.fill_bytes(slice_mut(memory, out, length)?);
        self.cost += u64::from(length);
        Ok(())
    }

    fn sock_accept(&mut self, _: &mut [u8], _fd: u32, _flags: u32, _out: u32) -> Done {
        Err(Errno::NOTSUP)
    }

    fn sock_recv(&mut self, _: &mut [u8], _: u32, _: u32, _: u32, _: u32, _: u32, _: u32) -> Done {
        Err(Errno::NOTSUP)
    }

    fn sock_send(&mut self, _: &mut [u8], _: u32, _: u32, _: u32, _: u32, _: u32) -> Done {
        Err(Errno::NOTSUP)
    }

    fn sock_shutdown(&mut self, _: &mut [u8], _fd: u32, _how: u32) -> Done {
        Err(Errno::NOTSUP)
    }
}
