//! An OCI image layout in a tar archive: index, manifest, configuration and layers, each with the digest that names it.
//!
//! Source: OCI Image Format 1.1 (image-layout.md, image-index.md, manifest.md, config.md, descriptor.md); Docker's media types
//! for the same documents are taken too, since `docker save` writes them into a layout.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{
    Stop,
    archive::{self, Kind, plain},
};
use crate::json::{self, Json};

/// Members of the layout's archive.
const MEMBERS_MAX: usize = 10_000;
/// Bytes of an index, a manifest or a configuration.
const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Indexes inside indexes.
const INDEX_DEPTH_MAX: usize = 3;
/// Manifests that are looked at.
const MANIFESTS_MAX: usize = 64;
/// Layers of an image.
const LAYERS_MAX: usize = 128;
/// Variables, or words of a command.
const LIST_MAX: usize = 1024;

/// The one image for this machine.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// Lowest first.
    pub(super) layers: Vec<Layer<'a>>,
    /// Entry point and its arguments.
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    /// Absolute.
    pub(super) working_folder: String,
}

#[derive(Debug)]
pub(super) struct Layer<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) gzip: bool,
    /// `sha256:` of the archive before compression.
    pub(super) diff_id: String,
}

/// The architecture by OCI's name, which is Go's.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `sha256:` and the digest in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The files of the archive, as slices of it.
struct Layout<'a>(BTreeMap<String, &'a [u8]>);

impl<'a> Image<'a> {
    /// Reads the layout and picks the image for this machine.
    pub(super) fn read(archive: &'a [u8]) -> Result<Self, Stop> {
        let layout = Layout::read(archive)?;
        let version = layout.document("oci-layout", layout.file("oci-layout")?)?;
        match text(&version, "imageLayoutVersion") {
            Some("1.0.0") => {}
            other => {
                let other = other.unwrap_or_default();
                return Err(Stop::invalid(format!("oci-layout: version 1.0.0 is known, not {other:?}")));
            }
        }
        let index = layout.document("index.json", layout.file("index.json")?)?;
        let (mut fitting, mut seen) = (Vec::new(), 0);
        layout.manifests(&index, 0, &mut seen, &mut fitting)?;
        let machine = format!("linux/{}", architecture());
        match &fitting[..] {
            [(manifest, config)] => layout.image(manifest, config),
            [] => Err(Stop::unsupported(format!("the layout has no image for {machine} ({seen} for others)"))),
            several => Err(Stop::unsupported(format!(
                "the layout has {} images for {machine}; a job needs exactly one",
                several.len()
            ))),
        }
    }
}

impl<'a> Layout<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Stop> {
        let mut files = BTreeMap::new();
        archive::read(bytes, &mut { MEMBERS_MAX }, &mut |member, _| {
            let names = plain(&member.path)?.join(&b'/');
            let name = String::from_utf8(names).map_err(|_| Stop::invalid("a name in the layout is no UTF-8"))?;
            match member.kind {
                Kind::Folder => return Ok(()),
                Kind::File => {}
                _ => return Err(Stop::invalid(format!("{name} in the layout is no plain file"))),
            }
            let end = member.position.checked_add(member.bytes).and_then(|end| usize::try_from(end).ok());
            let file = end.and_then(|end| bytes.get(member.position as usize..end));
            let file = file.ok_or_else(|| Stop::invalid(format!("{name} in the layout is cut short")))?;
            match files.insert(name.clone(), file) {
                None => Ok(()),
                Some(_) => Err(Stop::invalid(format!("{name} is in the layout twice"))),
            }
        })?;
        Ok(Self(files))
    }

    fn file(&self, name: &str) -> Result<&'a [u8], Stop> {
        self.0.get(name).copied().ok_or_else(|| Stop::invalid(format!("the layout has no {name}")))
    }

    fn document(&self, name: &str, bytes: &[u8]) -> Result<Json, Stop> {
        if bytes.len() > DOCUMENT_BYTES_MAX {
            return Err(Stop::invalid(format!("{name} has more than {DOCUMENT_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Stop::invalid(format!("{name} is no UTF-8")))?;
        json::parse(text).map_err(|problem| Stop::invalid(format!("{name} is no JSON: {problem}")))
    }

    /// The bytes that a descriptor names; their length and digest are checked.
    fn blob(&self, what: &str, descriptor: &Json) -> Result<&'a [u8], Stop> {
        let digest = text(descriptor, "digest").ok_or_else(|| Stop::invalid(format!("{what} has no digest")))?;
        let Some(hex) = digest.strip_prefix("sha256:").filter(|hex| is_hex(hex)) else {
            let shown: String = digest.chars().take(80).collect();
            return Err(Stop::unsupported(format!("{what}: {shown:?} is no sha256 digest")));
        };
        let bytes = self.file(&format!("blobs/sha256/{hex}"))?;
        match descriptor.get("size") {
            Some(Json::Number(size)) if *size == bytes.len().to_string() => {}
            _ => return Err(Stop::invalid(format!("{what} {digest} has {} bytes, not its size", bytes.len()))),
        }
        let actual = sha256(bytes);
        if actual != digest {
            return Err(Stop::invalid(format!("{what} {digest} has the digest {actual}")));
        }
        Ok(bytes)
    }

    /// The manifests for this machine, each with its configuration.
    fn manifests(
        &self,
        index: &Json,
        depth: usize,
        seen: &mut usize,
        fitting: &mut Vec<(Json, Json)>,
    ) -> Result<(), Stop> {
        if depth > INDEX_DEPTH_MAX {
            return Err(Stop::invalid(format!("indexes lie more than {INDEX_DEPTH_MAX} deep")));
        }
        for descriptor in list(index, "manifests")? {
            *seen += 1;
            if *seen > MANIFESTS_MAX {
                return Err(Stop::invalid(format!("the layout has more than {MANIFESTS_MAX} manifests")));
            }
            let elsewhere = |platform: &Json| {
                text(platform, "os") != Some("linux") || text(platform, "architecture") != Some(architecture())
            };
            if descriptor.get("platform").is_some_and(elsewhere) {
                continue;
            }
            match text(descriptor, "mediaType") {
                Some(
                    "application/vnd.oci.image.index.v1+json"
                    | "application/vnd.docker.distribution.manifest.list.v2+json",
                ) => {
                    let inner = self.document("index", self.blob("index", descriptor)?)?;
                    self.manifests(&inner, depth + 1, seen, fitting)?;
                }
                Some(
                    "application/vnd.oci.image.manifest.v1+json"
                    | "application/vnd.docker.distribution.manifest.v2+json",
                ) => {
                    let manifest = self.document("manifest", self.blob("manifest", descriptor)?)?;
                    let config = manifest.get("config").ok_or_else(|| Stop::invalid("the manifest has no config"))?;
                    if !matches!(
                        text(config, "mediaType"),
                        Some(
                            "application/vnd.oci.image.config.v1+json"
                                | "application/vnd.docker.container.image.v1+json"
                        )
                    ) {
                        // An artifact that is no image, a signature for example.
                        continue;
                    }
                    let config = self.document("config", self.blob("config", config)?)?;
                    if !elsewhere(&config) {
                        fitting.push((manifest, config));
                    }
                }
                other => {
                    let other = other.unwrap_or_default();
                    return Err(Stop::unsupported(format!("the index names something of type {other:?}")));
                }
            }
        }
        Ok(())
    }

    fn image(&self, manifest: &Json, config: &Json) -> Result<Image<'a>, Stop> {
        let missing = || Stop::invalid("the config has no rootfs");
        let diff_ids = list(config.get("rootfs").ok_or_else(missing)?, "diff_ids")?;
        let descriptors = list(manifest, "layers")?;
        if descriptors.len() != diff_ids.len() || descriptors.len() > LAYERS_MAX {
            let (layers, ids) = (descriptors.len(), diff_ids.len());
            return Err(Stop::invalid(format!("{layers} layers and {ids} diff_ids: as many, at most {LAYERS_MAX}")));
        }
        let mut layers = Vec::new();
        for (descriptor, diff_id) in descriptors.iter().zip(diff_ids) {
            let gzip = match text(descriptor, "mediaType") {
                Some("application/vnd.oci.image.layer.v1.tar") => false,
                Some(
                    "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip",
                ) => true,
                other => {
                    let other = other.unwrap_or_default();
                    let detail = format!("a layer has the type {other:?}; tar and tar+gzip are unpacked");
                    return Err(Stop::unsupported(detail));
                }
            };
            let Json::Text(diff_id) = diff_id else { return Err(Stop::invalid("a diff_id is no text")) };
            layers.push(Layer { bytes: self.blob("layer", descriptor)?, gzip, diff_id: diff_id.clone() });
        }
        let empty = Json::Object(Vec::new());
        let run = config.get("config").filter(|run| !matches!(run, Json::Null)).unwrap_or(&empty);
        let user = text(run, "User").unwrap_or_default();
        if !matches!(user, "" | "0" | "root" | "0:0" | "root:root") {
            return Err(Stop::unsupported(format!("the image runs as user {user:?}; this profile has root alone")));
        }
        let mut args = words(run, "Entrypoint")?;
        args.extend(words(run, "Cmd")?);
        let mut env = BTreeMap::new();
        for variable in words(run, "Env")? {
            let (name, value) = variable
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| Stop::invalid(format!("config.Env: {variable:?} is no NAME=value")))?;
            env.insert(name.to_owned(), value.to_owned());
        }
        let working_folder = match text(run, "WorkingDir") {
            None | Some("") => "/".to_owned(),
            Some(path) if path.starts_with('/') && !path.contains('\0') => path.to_owned(),
            Some(path) => return Err(Stop::invalid(format!("config.WorkingDir: {path:?} is no absolute path"))),
        };
        Ok(Image { layers, args, env, working_folder })
    }
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn text<'j>(json: &'j Json, key: &str) -> Option<&'j str> {
    match json.get(key) {
        Some(Json::Text(text)) => Some(text),
        _ => None,
    }
}

fn list<'j>(json: &'j Json, key: &str) -> Result<&'j [Json], Stop> {
    match json.get(key) {
        Some(Json::List(items)) => Ok(items),
        _ => Err(Stop::invalid(format!("{key} is no list"))),
    }
}

/// A list of texts that may be absent or null.
fn words(json: &Json, key: &str) -> Result<Vec<String>, Stop> {
    let items = match json.get(key) {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::List(items)) if items.len() <= LIST_MAX => items,
        Some(_) => return Err(Stop::invalid(format!("config.{key} is no list of at most {LIST_MAX} texts"))),
    };
    let word = |item: &Json| match item {
        Json::Text(text) if !text.contains('\0') => Ok(text.clone()),
        _ => Err(Stop::invalid(format!("config.{key} is no list of texts"))),
    };
    items.iter().map(word).collect()
}
