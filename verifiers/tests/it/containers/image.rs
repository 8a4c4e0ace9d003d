//! Images for the tests: the probe, compiled here, in layers and layouts, good and bad.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::Command,
    sync::{Arc, LazyLock},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// `probe.c` as a static program.
pub static PROBE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/containers/probe.c"));
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("probe");
    let compiled = Command::new("gcc").args(["-static", "-O1", "-o"]).arg(&program).arg(source).status();
    let compiled = compiled.expect("gcc is needed: apt-get install g++");
    assert!(compiled.success(), "gcc could not compile probe.c: apt-get install g++");
    fs::read(program).expect("the program")
});

/// One member of an archive, whatever its name is.
pub fn member(path: &[u8], kind: EntryType, link: &[u8], mode: u32, bytes: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path);
    old.linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    let mut all = header.as_bytes().to_vec();
    all.extend_from_slice(bytes);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

pub fn file(path: &str, bytes: &[u8]) -> Vec<u8> {
    member(path.as_bytes(), EntryType::Regular, b"", 0o644, bytes)
}

pub fn program(path: &str) -> Vec<u8> {
    member(path.as_bytes(), EntryType::Regular, b"", 0o755, &PROBE)
}

pub fn folder(path: &str) -> Vec<u8> {
    member(path.as_bytes(), EntryType::Directory, b"", 0o755, b"")
}

pub fn symlink(path: &str, target: &str) -> Vec<u8> {
    member(path.as_bytes(), EntryType::Symlink, target.as_bytes(), 0o777, b"")
}

pub fn hardlink(path: &str, target: &str) -> Vec<u8> {
    member(path.as_bytes(), EntryType::Link, target.as_bytes(), 0o644, b"")
}

/// Members and the end of an archive.
pub fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut all = members.concat();
    all.resize(all.len() + 1024, 0);
    all
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).expect("memory");
    packer.finish().expect("memory")
}

/// An image that is being made; every part can be spoilt on the way.
#[derive(Clone)]
pub struct Image {
    /// Layers before and after compression.
    layers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub config: Value,
    pub manifest: Value,
    pub index: Value,
    pub version: Value,
    /// Files of the layout beside those that follow from the rest, which they replace.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// The probe at `/probe`, which is the entry point.
    pub fn probe() -> Self {
        Self::of(vec![archive(&[program("probe")])])
    }

    /// Of layers that are not compressed; the lowest first.
    pub fn of(layers: Vec<Vec<u8>>) -> Self {
        Self {
            layers: layers.into_iter().map(|layer| (layer, None)).collect(),
            config: json!({
                "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
                "os": "linux",
                "config": { "Entrypoint": ["/probe"] },
                "rootfs": { "type": "layers" },
            }),
            manifest: json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json" }),
            index: json!({ "schemaVersion": 2 }),
            version: json!({ "imageLayoutVersion": "1.0.0" }),
            files: Vec::new(),
        }
    }

    /// The probe and one more layer.
    pub fn with(members: &[Vec<u8>]) -> Self {
        Self::of(vec![archive(&[program("probe")]), archive(members)])
    }

    pub fn packed(mut self) -> Self {
        for (layer, packed) in &mut self.layers {
            *packed = Some(gzip(layer));
        }
        self
    }

    /// The last layer is these bytes, compressed already; `unpacked` is what its diff_id says.
    pub fn packed_as(mut self, packed: Vec<u8>, unpacked: Vec<u8>) -> Self {
        self.layers.pop();
        self.layers.push((unpacked, Some(packed)));
        self
    }

    pub fn edit(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn blob(files: &mut Vec<(String, Vec<u8>)>, kind: &str, bytes: Vec<u8>) -> Value {
        let (digest, size) = (sha256(&bytes), bytes.len());
        files.push((format!("blobs/sha256/{digest}"), bytes));
        json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
    }

    /// The layout's files; what was set before stays.
    pub fn layout(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        for (layer, packed) in &self.layers {
            diff_ids.push(format!("sha256:{}", sha256(layer)));
            let kind = if packed.is_some() { "+gzip" } else { "" };
            let bytes = packed.as_ref().unwrap_or(layer).clone();
            layers.push(Self::blob(&mut files, &format!("application/vnd.oci.image.layer.v1.tar{kind}"), bytes));
        }
        let (mut config, mut manifest, mut index) = (self.config.clone(), self.manifest.clone(), self.index.clone());
        let rootfs = config["rootfs"].as_object_mut().expect("an object");
        rootfs.entry("diff_ids").or_insert(diff_ids.into());
        let config = Self::blob(&mut files, "application/vnd.oci.image.config.v1+json", config.to_string().into());
        let manifest_fields = manifest.as_object_mut().expect("an object");
        manifest_fields.entry("config").or_insert(config);
        manifest_fields.entry("layers").or_insert(layers.into());
        let manifest =
            Self::blob(&mut files, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().into());
        index.as_object_mut().expect("an object").entry("manifests").or_insert(json!([manifest]));
        files.push(("index.json".into(), index.to_string().into()));
        files.push(("oci-layout".into(), self.version.to_string().into()));
        for (name, bytes) in &self.files {
            files.retain(|(other, _)| other != name);
            files.push((name.clone(), bytes.clone()));
        }
        files
    }

    /// The layout as one archive.
    pub fn bytes(&self) -> Arc<[u8]> {
        let members: Vec<_> = self.layout().iter().map(|(name, bytes)| file(name, bytes)).collect();
        archive(&members).into()
    }
}
