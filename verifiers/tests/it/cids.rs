//! CIDs, and files and folders that are put together from blocks, against what other implementations made.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};
use tribunal_verifiers::{
    AnyCid, ArtifactFault, ArtifactSource, BLOCK_BYTES_MAX, Blocks, CarFault, CarReader, Chain, Cid, Codec, Content,
    Folder, FolderSource, Layout, MemorySource, Reference, fetch_content,
};

const MIB: u64 = 1024 * 1024;

/// Byte i is i mod 251.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..=250).cycle().take(bytes).collect()
}

fn bytes(content: &Value) -> Vec<u8> {
    match content.as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => pattern(content.as_u64().unwrap() as usize),
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../ipfs/vectors.json")).expect("the vectors")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn cid(value: &Value) -> AnyCid {
    text(value).parse().expect("a CID")
}

fn archive(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipfs")).join(name)
}

fn layout(profile: &Value) -> Layout {
    match text(profile) {
        "v0" => Layout::V0,
        "v1" => Layout::V1,
        "v1-2025" => Layout::V1Large,
        other => panic!("{other}"),
    }
}

/// A source with the blocks of one archive, whatever they say.
#[derive(Default)]
struct Archive {
    blocks: BTreeMap<[u8; 32], Vec<u8>>,
}

impl Archive {
    fn open(name: &str) -> Self {
        Self::read(&std::fs::read(archive(name)).expect("an archive"))
    }

    fn read(bytes: &[u8]) -> Self {
        let mut reader = CarReader::open(bytes).expect("an archive");
        let mut this = Self::default();
        while let Some((cid, _, block)) = reader.next_block().expect("a block") {
            this.blocks.insert(*cid.digest(), block);
        }
        this
    }
}

impl ArtifactSource for Archive {
    fn fetch(&self, _: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        Ok(None)
    }

    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        match self.blocks.get(cid.digest()) {
            Some(block) => into.keep(cid, block.as_slice()).map(|_| ()),
            None => Ok(()),
        }
    }
}

#[test]
fn cids_of_version_1_are_those_of_other_implementations() {
    let vectors = vectors();
    for it in list(&vectors["known"]) {
        assert_eq!(Layout::V1.file(text(&it[0]).as_bytes()), cid(&it[2]), "{it}");
    }
    for it in list(&vectors["files"]) {
        let bytes = pattern(it["bytes"].as_u64().unwrap() as usize);
        assert_eq!(layout(&it["profile"]).file(&bytes).to_string(), it["cid"], "{it}");
    }
    for it in list(&vectors["folders"]) {
        let files: Vec<_> =
            it["files"].as_object().unwrap().iter().map(|(path, it)| (path.as_str(), bytes(it))).collect();
        let mut folder = Folder::new();
        for (path, bytes) in &files {
            folder.add_file(path, bytes).unwrap();
        }
        for path in list(&it["folders"]) {
            folder.add_folder(text(path)).unwrap();
        }
        assert_eq!(folder.cid_as(layout(&it["profile"])).unwrap().to_string(), it["cid"], "{it}");
    }
}

#[test]
fn a_cid_has_one_text_and_is_read_in_every_base_that_is_said() {
    let vectors = vectors();
    for it in list(&vectors["forms"]) {
        let known = cid(&it["cid"]);
        assert_eq!(known.to_string(), it["cid"]);
        for other in list(&it["same"]) {
            assert_eq!(cid(other), known, "{other}");
        }
        let bytes = known.to_bytes();
        let mut rest = &[&bytes[..], b"rest"].concat()[..];
        assert_eq!(AnyCid::take(&mut rest), Ok(known));
        assert_eq!(rest, b"rest");
    }
    for it in list(&vectors["refused"]) {
        let problem = text(&it[0]).parse::<AnyCid>().expect_err(text(&it[0])).to_string();
        assert!(problem.contains(text(&it[1])), "{problem}");
    }
    let good = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
    let last = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei5";
    for wrong in [
        "",
        "b",
        "Qm",
        "../../etc/passwd",
        &good[..58],
        &format!("{good}a"),
        &good.to_uppercase(),
        &good.replace('a', "1"),
        // A digit whose last bits lie outside of the CID.
        last,
        "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5O",
        // A multihash in another base.
        "zQmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o",
        &"é".repeat(30),
        &"b".repeat(1000),
    ] {
        assert!(wrong.parse::<AnyCid>().is_err(), "{wrong}");
    }
    let v0: Cid = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o".parse().unwrap();
    assert_eq!(AnyCid::from(v0).to_string(), v0.to_string());
    assert_eq!(AnyCid::from(v0).version_1().to_string(), "bafybeicg2rebjoofv4kbyovkw7af3rpiitvnl6i7ckcywaq6xjcxnc2mby");
}

#[test]
fn files_and_folders_are_put_together_as_others_do() {
    for it in list(&vectors()["cars"]) {
        let source = Archive::open(text(&it["file"]));
        let found = fetch_content(&source, &cid(&it["root"]), MIB);
        if let Some(problem) = it["refused"].as_str() {
            let fault = found.expect_err(text(&it["file"])).to_string();
            assert!(fault.contains(problem), "{it}: {fault}");
            continue;
        }
        match found.unwrap_or_else(|fault| panic!("{}: {fault}", it["file"])).expect("a root") {
            Content::File(found) => {
                let expected = if it["text"].is_null() { &it["bytes"] } else { &it["text"] };
                assert_eq!(found[..], bytes(expected), "{}", it["file"]);
            }
            Content::Folder(tree) => {
                let files: BTreeMap<_, _> = it["files"]
                    .as_object()
                    .unwrap()
                    .iter()
                    .map(|(path, it)| (path.clone(), bytes(it).into()))
                    .collect();
                assert_eq!(tree.files, files, "{}", it["file"]);
                let folders: BTreeSet<_> = list(&it["folders"]).iter().map(|path| text(path).to_owned()).collect();
                assert_eq!(tree.folders, folders, "{}", it["file"]);
            }
        }
    }
}

#[test]
fn every_block_of_a_file_is_checked_and_needed() {
    let vectors = vectors();
    let it = &list(&vectors["cars"])[0];
    let root = cid(&it["root"]);
    let whole = Archive::open(text(&it["file"]));
    for digest in whole.blocks.keys() {
        let mut other = Archive { blocks: whole.blocks.clone() };
        other.blocks.get_mut(digest).unwrap()[0] ^= 1;
        assert!(matches!(fetch_content(&other, &root, MIB), Err(ArtifactFault::OtherBlock { .. })));
        // Another source has the right one.
        let without = |digest: &[u8; 32]| {
            let blocks = whole.blocks.iter().filter(|(key, _)| *key != digest);
            Archive { blocks: blocks.map(|(digest, block)| (*digest, block.clone())).collect() }
        };
        let rest = Archive { blocks: BTreeMap::from([(*digest, whole.blocks[digest].clone())]) };
        let chain = Chain(vec![Arc::new(other), Arc::new(without(digest)), Arc::new(rest)]);
        assert_eq!(chain.fetch(&Reference::Cid(root)).unwrap().unwrap()[..], pattern(500));
        let found = fetch_content(&without(digest), &root, MIB);
        if digest == root.digest() {
            assert_eq!(found.unwrap(), None);
        } else {
            assert!(matches!(found, Err(ArtifactFault::MissingBlock { .. })));
        }
    }
    assert!(matches!(fetch_content(&whole, &root, 499), Err(ArtifactFault::TooLarge { most: 499, .. })));
    assert!(fetch_content(&whole, &root, 500).is_ok());
}

/// Sends the blocks of an archive all at once, and many others.
struct Talker(Archive);

impl ArtifactSource for Talker {
    fn fetch(&self, _: &Reference) -> Result<Option<Arc<[u8]>>, ArtifactFault> {
        Ok(None)
    }

    fn blocks(&self, cid: &AnyCid, into: &mut Blocks) -> Result<(), ArtifactFault> {
        let left = into.bytes_left();
        for number in 0..100u32 {
            let block = [&number.to_be_bytes()[..], &[0; 100_000]].concat();
            assert!(!into.keep(&AnyCid::of_block(Codec::Raw, &block), block)?, "it belongs to nothing");
        }
        assert_eq!(into.bytes_left(), left);
        let block = &self.0.blocks[cid.digest()];
        into.keep(cid, block.as_slice())?;
        // All that is known now, again and again: what nothing leads to yet is not kept.
        for _ in 0..9 {
            for block in self.0.blocks.values() {
                for codec in [Codec::Raw, Codec::DagPb] {
                    into.keep(&AnyCid::of_block(codec, block), block.as_slice())?;
                }
            }
        }
        assert_eq!(into.order().len(), self.0.blocks.len(), "they came with the first");
        Ok(())
    }
}

#[test]
fn blocks_that_belong_to_nothing_are_not_kept() {
    let vectors = vectors();
    let it = &list(&vectors["cars"])[1];
    let talker = Talker(Archive::open(text(&it["file"])));
    assert_eq!(talker.0.blocks.len(), 76);
    let found = fetch_content(&talker, &cid(&it["root"]), MIB).unwrap().unwrap();
    assert_eq!(found, Content::File(pattern(500).into()));
}

#[test]
fn a_block_is_bounded() {
    let block = vec![7; BLOCK_BYTES_MAX + 1];
    let cid = AnyCid::of_block(Codec::Raw, &block);
    let source = Archive { blocks: BTreeMap::from([(*cid.digest(), block)]) };
    assert!(matches!(fetch_content(&source, &cid, 1 << 40), Err(ArtifactFault::TooLarge { .. })));
}

#[test]
fn an_archive_that_is_cut_or_malformed_is_none() {
    let whole = std::fs::read(archive("deep-raw.car")).unwrap();
    let read = |bytes: &[u8]| -> Result<usize, CarFault> {
        let mut reader = CarReader::open(bytes)?;
        let mut count = 0;
        while reader.next_block()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    let all = read(&whole).unwrap();
    // Cut anywhere, it is an archive only where a block ends.
    let good = (0..whole.len()).filter(|length| read(&whole[..*length]).is_ok()).count();
    assert_eq!(good, all, "after the header and after every block but the last");
    let form = |bytes: &[u8]| matches!(read(bytes), Err(CarFault::Form(_)));
    assert!(form(b""));
    let header = usize::from(whole[0]) + 1;
    assert!(form(&[&whole[..header], &[0]].concat()), "a block of no bytes");
    assert!(form(&[&whole[..header], &[0xff; 10]].concat()), "a length above 64 bits");
    assert!(form(&[&whole[..header], &[0xff, 0xff, 0xff, 0xff, 0x0f]].concat()), "a length that nothing has");
    assert!(form(&[&whole[..header], &[0x81, 0x00]].concat()), "a length longer than it must be");
    let version_2 = [&[0x0a, 0xa1, 0x67][..], b"version", &[2]].concat();
    assert!(form(&version_2));
    let place = whole.windows(7).position(|window| window == b"version").unwrap() + 7;
    let mut other = whole.clone();
    other[place] = 2;
    assert!(form(&other));
    // Blocks of other kinds beside those that are asked for.
    let cid = [&[1, 0x71, 0x12, 0x20][..], &[7; 32]].concat();
    let other = [&whole[..header], &[cid.len() as u8 + 1], &cid, b"x", &whole[header..]].concat();
    assert_eq!(read(&other).unwrap(), all);
}

#[test]
fn a_folder_serves_its_files_and_folders_by_their_cids_and_the_archives_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("artifacts");
    std::fs::create_dir_all(inside.join("results/outputs")).unwrap();
    for (name, bytes) in [("stdout", &b"hello world\n"[..]), ("stderr", b""), ("exitCode", b"0"), (".hidden", b"no")] {
        std::fs::write(inside.join("results").join(name), bytes).unwrap();
    }
    let large = pattern(600_000);
    std::fs::write(inside.join("large"), &large).unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", inside.join("link")).unwrap();
    let source = FolderSource::open(&inside).unwrap();
    for layout in Layout::ALL {
        let cid = layout.file(&large);
        assert_eq!(source.fetch(&Reference::Cid(cid)).unwrap().unwrap()[..], large[..], "{layout:?}");
        assert_eq!(source.fetch(&Reference::Cid(layout.file(b"secret"))).unwrap(), None, "{layout:?}");
    }
    let vectors = vectors();
    let results = list(&vectors["folders"]).iter().filter(|it| !it["files"]["exitCode"].is_null());
    for it in results.filter(|it| it["files"]["stdout"] == "hello world\n") {
        let Some(Content::Folder(tree)) = fetch_content(&source, &cid(&it["cid"]), MIB).unwrap() else {
            panic!("{it}")
        };
        assert_eq!(tree.files.keys().map(String::as_str).collect::<Vec<_>>(), ["exitCode", "stderr", "stdout"]);
        assert_eq!(tree.folders, BTreeSet::from(["outputs".into()]));
        let fault = source.fetch(&Reference::Cid(cid(&it["cid"]))).unwrap_err().to_string();
        assert!(fault.contains("is a folder"), "{fault}");
    }
    // An archive that comes later, and what changes.
    let it = list(&vectors["cars"]).iter().find(|it| it["file"] == "shards.car").unwrap();
    assert_eq!(fetch_content(&source, &cid(&it["root"]), MIB).unwrap(), None);
    std::fs::copy(archive("shards.car"), inside.join("shards.car")).unwrap();
    let Some(Content::Folder(tree)) = fetch_content(&source, &cid(&it["root"]), MIB).unwrap() else { panic!() };
    assert_eq!((tree.files.len(), &tree.files["file-7"][..]), (400, &b"n7"[..]));
    std::fs::write(inside.join("large"), "other").unwrap();
    assert_eq!(source.fetch(&Reference::Cid(Layout::V0.file(&large))).unwrap(), None);
    assert!(source.fetch(&Reference::Cid(Layout::V0.file(b"other"))).unwrap().is_some());
    // An archive that lies about a block hides nothing.
    let mut lie = std::fs::read(archive("deep-raw.car")).unwrap();
    let last = lie.len() - 1;
    lie[last] ^= 1;
    std::fs::write(inside.join("a-lie.car"), lie).unwrap();
    std::fs::copy(archive("deep-raw.car"), inside.join("b-truth.car")).unwrap();
    std::fs::write(inside.join("c-none.car"), "no archive").unwrap();
    let root = cid(&list(&vectors["cars"])[0]["root"]);
    assert_eq!(source.fetch(&Reference::Cid(root)).unwrap().unwrap()[..], pattern(500));
}

#[test]
fn small_files_in_memory_are_blocks_too() {
    let mut memory = MemorySource::new();
    memory.add(b"hello world\n".as_slice());
    let cid = Layout::V1.file(b"hello world\n");
    assert_eq!(memory.fetch(&Reference::Cid(cid)).unwrap().as_deref(), Some(&b"hello world\n"[..]));
    assert_eq!(memory.fetch(&Reference::Cid(Layout::V1.file(b"other"))).unwrap(), None);
}

#[test]
fn requests_name_cids_in_every_form_and_nothing_that_is_none() {
    let parse = |module: &str| {
        let request = json!({
            "method": { "kind": "reexecution" },
            "job": { "runtime": "wasm-1", "module": module, "outputs": ["/out"],
                     "limits": { "fuel": 1, "memory_bytes": 1, "output_bytes": 1, "wall_ms": 1 } },
            "claim": {},
        });
        tribunal_verifiers::Request::parse(&request.to_string())
    };
    let v0 = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o";
    for it in list(&vectors()["forms"]) {
        for form in list(&it["same"]).iter().chain([&it["cid"]]) {
            for text in [text(form).to_owned(), format!("ipfs://{}", text(form))] {
                let request = parse(&text).unwrap();
                assert_eq!(request.job.as_ref().unwrap().module, Reference::Cid(cid(&it["cid"])), "{text}");
                assert!(request.canonical_json().contains(&format!("\"module\":{}", it["cid"])), "{text}");
            }
        }
    }
    for it in list(&vectors()["refused"]) {
        let problem = parse(&format!("ipfs://{}", text(&it[0]))).unwrap_err();
        assert_eq!(problem.field, "job.module");
        assert!(problem.problem.contains(text(&it[1])), "{problem}");
    }
    for (wrong, said) in [
        (&format!("ipfs://{v0}/a.wasm")[..], "a path inside"),
        ("ipfs://", "is no IPFS CID"),
        ("ipfs://job.wasm", "is no IPFS CID"),
        ("bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei5", "is no IPFS CID"),
    ] {
        let problem = parse(wrong).unwrap_err();
        assert!(problem.problem.contains(said), "{problem}");
    }
    for file in ["zebra.wasm", "bafy", "f01.wasm", &v0[1..]] {
        assert_eq!(parse(file).unwrap().job.unwrap().module, Reference::File(file.into()));
    }
}
