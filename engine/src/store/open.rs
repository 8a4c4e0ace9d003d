use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use rocksdb::{DB, WriteBatch};

use super::{
    Access, FORMAT, Fsync, Inner, META_FORMAT, Place, Store, StoreFault,
    family::{self, Family},
    group::GroupSync,
    mark::Mark,
    row,
    tree::Edge,
};

/// Opened for writing it becomes the present one.
const FORMAT_WITHOUT_TREE: u64 = 1;

impl Store {
    /// Opens a store for writing; creates it where there is none. Holds its lock until the last clone is dropped.
    ///
    /// # Errors
    /// [`StoreFault::Locked`], [`StoreFault::Format`], [`StoreFault::Damaged`], [`StoreFault::Io`].
    pub fn open(path: impl AsRef<Path>, fsync: Fsync) -> Result<Self, StoreFault> {
        let path = path.as_ref().to_path_buf();
        std::fs::create_dir_all(&path).map_err(|error| StoreFault::io("creating the store's directory", error))?;
        let marked = Mark::read(&path);
        let existing = existing_families(&path)?;
        let db = DB::open_cf_descriptors(&family::database_options(true), &path, family::descriptors(&existing))
            .map_err(|error| opening(&path, error))?;
        let mark = Mark::open(&path).map_err(|error| StoreFault::io("opening the store's mark", error))?;
        let (db, poisoned) = (Arc::new(db), Arc::new(AtomicBool::new(false)));
        let group = (fsync == Fsync::Group).then(|| GroupSync::start(Arc::clone(&db), Arc::clone(&poisoned)));
        let group = group.transpose().map_err(|error| StoreFault::io("starting the thread that syncs", error))?;
        let mut inner = Inner::new(db, poisoned, path, Access::Write { fsync, mark, group });
        if inner.get(Family::Meta, META_FORMAT.as_bytes())?.is_none() {
            if inner.read_last_position()? > 0 {
                return Err(row::damaged(Family::Meta, META_FORMAT.as_bytes(), "events without a format version"));
            }
            let row = row::seal(Family::Meta, META_FORMAT.as_bytes(), FORMAT.to_be_bytes().to_vec());
            let mut batch = WriteBatch::default();
            batch.put_cf(inner.family(Family::Meta), META_FORMAT, row);
            inner.write(batch, true)?;
        }
        let upgrade = inner.check_end(marked, true)?;
        inner.writer.get_mut().expect("not shared yet").next_refused = inner.last_refused()? + 1;
        let mut this = Self(Arc::new(inner));
        let edge = if upgrade { this.upgrade()? } else { Edge::load(&this.0, this.last_position())? };
        let inner = Arc::get_mut(&mut this.0).expect("nobody has a clone yet");
        inner.writer.get_mut().expect("not shared yet").edge = edge;
        Ok(this)
    }

    /// From format 1, which had no tree.
    fn upgrade(&self) -> Result<Edge, StoreFault> {
        tracing::info!(store = %self.0.path.display(), "format 1: building the tree over the log, once");
        let edge = Edge::build(self)?;
        let mut batch = WriteBatch::default();
        let row = row::seal(Family::Meta, META_FORMAT.as_bytes(), FORMAT.to_be_bytes().to_vec());
        batch.put_cf(self.0.family(Family::Meta), META_FORMAT, row);
        self.0.write(batch, true)?;
        Ok(edge)
    }

    /// Opens a store for reading, also while another process writes to it. Sees everything that was appended before the
    /// call; [`Store::catch_up`] sees what came since.
    ///
    /// # Errors
    /// [`StoreFault::Missing`], [`StoreFault::Format`], [`StoreFault::Damaged`], [`StoreFault::Io`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, StoreFault> {
        let path = path.as_ref().to_path_buf();
        if !path.join("CURRENT").exists() {
            return Err(StoreFault::Missing { path });
        }
        // The writer may replace files between our reading of the manifest and of the files that it names.
        let mut attempts_left = 5;
        loop {
            attempts_left -= 1;
            match Self::open_secondary(&path) {
                Err(StoreFault::Io { .. } | StoreFault::Damaged { place: Place::Files, .. }) if attempts_left > 0 => {}
                other => return other,
            }
        }
    }

    fn open_secondary(path: &Path) -> Result<Self, StoreFault> {
        let marked = Mark::read(path);
        let existing = existing_families(path)?;
        let scratch =
            scratch_directory().map_err(|error| StoreFault::io("creating a directory to read from", error))?;
        let mut options = family::database_options(false);
        // All files are opened at once and stay open, so that the writer may delete them.
        options.set_max_open_files(-1);
        let db = DB::open_cf_descriptors_as_secondary(&options, path, &scratch, family::descriptors(&existing));
        let db = match db {
            Ok(db) => db,
            Err(error) => {
                let _ = std::fs::remove_dir_all(&scratch);
                return Err(opening(path, error));
            }
        };
        let poisoned = Arc::new(AtomicBool::new(false));
        let inner = Inner::new(Arc::new(db), poisoned, path.to_path_buf(), Access::Read { scratch });
        inner.db.try_catch_up_with_primary().map_err(|error| StoreFault::rocks("reading the log", error))?;
        if inner.get(Family::Meta, META_FORMAT.as_bytes())?.is_none() {
            return Err(StoreFault::Missing { path: path.to_path_buf() });
        }
        inner.check_end(marked, false)?;
        Ok(Self(Arc::new(inner)))
    }

    /// Reads what the writer appended since; nothing to do for the writer itself.
    ///
    /// # Errors
    /// [`StoreFault`] if the files cannot be read.
    pub fn catch_up(&self) -> Result<(), StoreFault> {
        self.0.usable()?;
        if matches!(self.0.access, Access::Read { .. }) {
            let marked = Mark::read(&self.0.path);
            self.0.db.try_catch_up_with_primary().map_err(|error| StoreFault::rocks("reading the log", error))?;
            self.0.check_end(marked, false)?;
        }
        Ok(())
    }
}

impl Inner {
    /// Refuses a format that is unknown here and a log that ends before what was acknowledged; takes in its end. Whether
    /// the store is to be upgraded, where that `may` be done.
    fn check_end(&self, marked: Option<u64>, may: bool) -> Result<bool, StoreFault> {
        let key = META_FORMAT.as_bytes();
        let mut upgrade = false;
        if let Some(row) = self.get(Family::Meta, key)? {
            let body = row::unseal(Family::Meta, key, &row)?;
            let found = body.try_into().map(u64::from_be_bytes);
            let found = found.map_err(|_| row::damaged(Family::Meta, key, "a format version has 8 bytes"))?;
            upgrade = may && found == FORMAT_WITHOUT_TREE;
            if found != FORMAT && !upgrade {
                return Err(StoreFault::Format { found, supported: FORMAT });
            }
        }
        let last = self.read_last_position()?;
        if let Some(marked) = marked.filter(|&marked| marked > last) {
            let what = format!(
                "the log ends at position {last}, but {marked} was acknowledged; restore a backup, or remove the file \
                 MARK to go on without the records that are lost"
            );
            return Err(StoreFault::damaged(Place::Position(last + 1), what));
        }
        if last > 0 {
            self.record(last)?;
        }
        self.last_position.store(last, Ordering::Release);
        Ok(upgrade)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Access::Read { scratch } = &self.access {
            let _ = std::fs::remove_dir_all(scratch);
        }
    }
}

fn existing_families(path: &Path) -> Result<Vec<String>, StoreFault> {
    if !path.join("CURRENT").exists() {
        return Ok(Vec::new());
    }
    DB::list_cf(&family::database_options(false), path).map_err(|error| opening(path, error))
}

fn opening(path: &Path, error: rocksdb::Error) -> StoreFault {
    // RocksDB has no error kind of its own for a lock that is held.
    if error.as_ref().contains("lock file") || error.as_ref().contains("lock hold by current process") {
        return StoreFault::Locked { path: path.to_path_buf() };
    }
    StoreFault::rocks("opening the store", error)
}

/// A directory of our own for a reader's log files.
fn scratch_directory() -> std::io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = std::env::temp_dir();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("tribunal-reader-{}-{number}", std::process::id()));
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| path),
        }
    }
}
