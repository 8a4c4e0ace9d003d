use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel, LruCacheOptions,
    Options, SliceTransform,
};

/// What is kept of files in memory, their filters and indices included.
const CACHE_BYTES: usize = 96 << 20;

/// A column family. All keys are big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// position → record frame
    Events,
    /// deal id, version → position, link
    Index,
    /// deal id → head
    Heads,
    /// deal id of every open deal → nothing
    Open,
    /// event id → position: what makes a repeated event harmless, for ever
    EventIds,
    /// effect id → what is to be done; the only family whose rows go away
    Outbox,
    /// bus stream, incarnation → how far it was read
    Cursors,
    /// running number → what was not admitted
    Refused,
    /// deal id → saved fold
    Snapshots,
    /// key → value, written once: what was decided before it was signed
    Intents,
    /// name → value
    Meta,
    /// level, number → tile of the Merkle tree
    Tree,
    /// what is kept of the head map: see `head_map.rs`
    HeadMap,
    /// tree size → signed checkpoint
    Checkpoints,
    /// read models, rebuildable
    Projections,
}

impl Family {
    pub(super) const ALL: [Self; 15] = [
        Self::Events,
        Self::Index,
        Self::Heads,
        Self::Open,
        Self::EventIds,
        Self::Outbox,
        Self::Cursors,
        Self::Refused,
        Self::Snapshots,
        Self::Intents,
        Self::Meta,
        Self::Tree,
        Self::HeadMap,
        Self::Checkpoints,
        Self::Projections,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Index => "stream-index",
            Self::Heads => "stream-heads",
            Self::Open => "open-deals",
            Self::EventIds => "event-ids",
            Self::Outbox => "outbox",
            Self::Cursors => "cursors",
            Self::Refused => "refused",
            Self::Snapshots => "snapshots",
            Self::Intents => "intents",
            Self::Meta => "meta",
            Self::Tree => "tree",
            Self::HeadMap => "head-map",
            Self::Checkpoints => "checkpoints",
            Self::Projections => "projections",
        }
    }

    fn options(self, cache: &Cache) -> Options {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_write_buffer_size(16 << 20);
        match self {
            Self::Events => {
                blocks.set_block_size(16 << 10);
                options.set_write_buffer_size(64 << 20);
            }
            Self::Index => {
                blocks.set_bloom_filter(10.0, false);
                blocks.set_whole_key_filtering(false);
                options.set_prefix_extractor(SliceTransform::create_fixed_prefix(32));
                options.set_memtable_prefix_bloom_ratio(0.1);
            }
            Self::Heads | Self::EventIds | Self::Snapshots | Self::Intents => {
                blocks.set_bloom_filter(10.0, false);
                options.set_memtable_prefix_bloom_ratio(0.1);
                options.set_memtable_whole_key_filtering(true);
            }
            _ => {}
        }
        options.set_block_based_table_factory(&blocks);
        options
    }
}

/// Options of the whole database.
///
/// Recovery tolerates a torn tail, which a crash in the middle of a write leaves, and refuses any other damage of the
/// write-ahead log: RocksDB's default would open at the last good point and silently lose what was acknowledged.
pub(super) fn database_options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_max_total_wal_size(512 << 20);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_open_files(4096);
    options.set_keep_log_file_num(10);
    options.set_log_level(LogLevel::Warn);
    options
}

/// Our families, and with plain options whatever else a newer version may have put there, so that its format can be read
/// and refused by name.
pub(super) fn descriptors(existing: &[String]) -> Vec<ColumnFamilyDescriptor> {
    // One shard: a shard keeps nothing larger than itself, and the filters of a log of millions are megabytes each. Those of
    // ten million events take about 20 MB.
    let mut cache = LruCacheOptions::default();
    cache.set_capacity(CACHE_BYTES);
    cache.set_num_shard_bits(0);
    let cache = Cache::new_lru_cache_opts(&cache);
    let ours = Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), family.options(&cache)));
    let known = |name: &String| Family::ALL.iter().any(|family| family.name() == name);
    let foreign = existing.iter().filter(|name| !known(name));
    let foreign = foreign.map(|name| ColumnFamilyDescriptor::new(name, Options::default()));
    ours.into_iter().chain(foreign).collect()
}
