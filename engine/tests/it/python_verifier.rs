//! Evidence read by a second hand: a verifier in Python, written from the format's documentation alone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tribunal_engine::{
    bundle::{DealFile, VerifyOptions, export, read, verify, write},
    demo::{self, BusChoice},
};
use tribunal_events::tlog::LogKey;
use tribunal_fixtures::TermsBuilder;
use tribunal_verifiers::MemorySource;

use crate::{
    audit::{Engine, caught, drawn, played, script},
    bundle::sign,
};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Runs one of the scripts; whether it ended well, and what it said.
#[track_caller]
pub fn python(script: &str, arguments: &[&Path]) -> (bool, String) {
    let interpreter = std::env::var("TRIBUNAL_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(&interpreter)
        .arg("-B")
        .arg(tests().join("python").join(script))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{interpreter}: {error} (make test installs what it needs)"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{script} by {interpreter} (make test installs what it needs): {errors}");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Files by name, and what the second verifier says of each: one line a claim.
struct Files {
    folder: TempDir,
    names: Vec<String>,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), names: Vec::new() }
    }

    fn add(&mut self, name: impl Into<String>, bytes: &[u8]) {
        let name = name.into();
        std::fs::write(self.path(&name), bytes).unwrap();
        self.names.push(name);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name.replace(['/', ':', ' '], "_"))
    }

    /// The last line on each file.
    fn verified(&self) -> BTreeMap<&str, Vec<String>> {
        let paths: Vec<_> = self.names.iter().map(|name| self.path(name)).collect();
        let arguments: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
        assert!(arguments.len() > 1, "one file is printed without its name");
        let (sound, text) = python("verify_bundle.py", &arguments);
        let parts: Vec<Vec<String>> =
            text.split("== ").skip(1).map(|part| part.lines().skip(1).map(str::to_owned).collect()).collect();
        assert_eq!(parts.len(), self.names.len(), "{text}");
        assert_eq!(sound, !text.lines().any(|line| line.starts_with("failed")), "{text}");
        self.names.iter().map(String::as_str).zip(parts).collect()
    }

    #[track_caller]
    fn assert_all_refused(&self) {
        for (name, claims) in self.verified() {
            let last = claims.last().map_or("", String::as_str);
            assert!(last.starts_with("failed"), "{name}: {claims:#?}");
        }
    }
}

type Sections = BTreeMap<String, Vec<u8>>;

fn sections(bytes: &[u8]) -> Sections {
    read(bytes).unwrap().into_iter().map(|(name, body)| (name.to_owned(), body.to_vec())).collect()
}

/// A file after a change to its sections, with all digests right again.
fn forged(bytes: &[u8], change: impl FnOnce(&mut Sections)) -> Vec<u8> {
    let mut sections = sections(bytes);
    change(&mut sections);
    write(&sections)
}

/// The key of the scripts.
fn log_key() -> LogKey {
    let seed: [u8; 32] = Sha256::digest(b"tribunal log key").into();
    LogKey::new("log.example/tribunal", &seed).unwrap()
}

/// Every way a deal can go, under one checkpoint.
fn logged() -> (Engine, MemorySource) {
    let (engine, source) = played();
    sign(&engine.store, log_key());
    (engine, source)
}

/// The last byte of a record's time.
const RECORDED_AT_END: usize = 129;
const LOG_SECTIONS: [&str; 3] = ["checkpoint", "log-key.json", "proofs.json"];

fn is_sound(bytes: &[u8]) -> bool {
    verify(bytes, &VerifyOptions::default()).is_ok_and(|report| report.is_sound())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_verifier_finds_every_deal_of_the_demo_sound() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let deals = demo::read(&fixtures).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stage = demo::stage(&fixtures, folder.path(), Some(BusChoice::InProcess)).await.unwrap();
    let played = demo::play(&stage, &deals, |_, _| {}).await.unwrap();
    sign(stage.engine.store(), log_key());
    let mut files = Files::new();
    for deal in played.iter().filter(|deal| deal.outcome != "refused") {
        let artifacts = stage.artifacts.as_ref();
        files.add(&deal.name, &export(stage.engine.store(), &deal.deal_id, Some(artifacts)).unwrap());
    }
    stage.engine.shutdown(std::time::Duration::from_secs(60)).await;
    assert!(files.names.len() >= 10, "{:?}", files.names);
    for (name, claims) in files.verified() {
        let proved = ["file", "terms", "records", "signatures", "consent", "votes", "reports", "contents"];
        let proved = proved.iter().chain(&["log key", "inclusion", "complete"]);
        let lines = proved.map(|claim| format!("proved    {claim}: ")).chain(["attested  checkpoint: ".into()]);
        for start in lines {
            assert!(claims.iter().any(|line| line.starts_with(&start)), "{name}: {start} in {claims:#?}");
        }
    }
}

#[test]
fn a_second_verifier_refuses_whatever_the_first_one_does() {
    let (engine, source) = logged();
    let whole = export(&engine.store, &caught().terms().deal_id(), Some(&source)).unwrap();
    let panel = export(&engine.store, &drawn().terms().deal_id(), Some(&source)).unwrap();
    let mut files = Files::new();
    for (deal, bytes) in [("caught", &whole), ("drawn", &panel)] {
        assert!(is_sound(bytes));
        let start = |name: &str| read(bytes).unwrap()[name].as_ptr() as usize - bytes.as_ptr() as usize;
        for (name, body) in sections(bytes) {
            for at in [0, body.len() / 3, body.len() - 1] {
                let mut flipped = bytes.clone();
                flipped[start(&name) + at] ^= 1;
                assert!(!is_sound(&flipped));
                files.add(format!("{deal} {name} {at} flipped"), &flipped);
                let sealed = forged(bytes, |sections| sections.get_mut(&name).unwrap()[at] ^= 1);
                assert!(!is_sound(&sealed), "{deal}: {name}, byte {at}");
                files.add(format!("{deal} {name} {at} flipped and sealed again"), &sealed);
            }
            let without = forged(bytes, |sections| drop(sections.remove(&name)));
            assert!(!is_sound(&without), "{deal} without {name}");
            files.add(format!("{deal} without {name}"), &without);
            for end in [0, body.len() - 1] {
                let cut = forged(bytes, |sections| sections.get_mut(&name).unwrap().truncate(end));
                assert!(!is_sound(&cut), "{deal}: {name} cut at {end}");
                files.add(format!("{deal} {name} cut at {end}"), &cut);
            }
        }
        for end in [0, 1, 17, bytes.len() / 2, bytes.len() - 1] {
            files.add(format!("{deal} cut at {end}"), &bytes[..end]);
        }
        // What only a link covers, and what only the log's signature does.
        let unsigned = forged(bytes, |it| it.retain(|section, _| !LOG_SECTIONS.contains(&section.as_str())));
        let later = forged(&unsigned, |it| it.get_mut("record/00000002").unwrap()[RECORDED_AT_END] ^= 1);
        let more_deals = forged(bytes, |it| {
            let note = String::from_utf8(it["checkpoint"].clone()).unwrap();
            it.insert("checkpoint".into(), note.replace("heads/1 ", "heads/1 1").into_bytes());
        });
        assert!(!is_sound(&later) && !is_sound(&more_deals));
        files.add(format!("{deal} recorded at another time"), &later);
        files.add(format!("{deal} more deals than signed"), &more_deals);
        files.add(format!("{deal} twice"), &[bytes.as_slice(), bytes.as_slice()].concat());
        let other = if deal == "caught" { &panel } else { &whole };
        assert!(LOG_SECTIONS.iter().all(|name| sections(bytes).contains_key(*name)));
        for name in ["record/00000001", "record/00000003", "terms", "deal.json", "proofs.json"] {
            let mixed = forged(bytes, |mine| drop(mine.insert(name.to_owned(), sections(other)[name].clone())));
            files.add(format!("{deal} with the other's {name}"), &mixed);
        }
    }
    assert!(files.names.len() > 200, "{}", files.names.len());
    files.assert_all_refused();
}

#[test]
fn a_log_made_by_a_second_hand_gives_the_same_files() {
    let (engine, source) = logged();
    let plain = Files::new();
    let out = plain.folder.path().join("logged");
    let (mut arguments, mut ours) = (vec![out.clone()], BTreeMap::new());
    for deal in engine.store.deals() {
        let deal_id = deal.unwrap().0;
        let (name, bytes) = (deal_id.to_string(), export(&engine.store, &deal_id, Some(&source)).unwrap());
        let unsigned = forged(&bytes, |it| it.retain(|section, _| !LOG_SECTIONS.contains(&section.as_str())));
        std::fs::write(plain.path(&name), unsigned).unwrap();
        arguments.push(plain.path(&name));
        ours.insert(name, bytes);
    }
    assert!(ours.len() > 5);
    let (made, text) = python("log_bundles.py", &arguments.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    assert!(made, "{text}");
    for (name, bytes) in ours {
        let theirs = std::fs::read(out.join(&name)).unwrap();
        let differs = |(section, body): &(String, Vec<u8>)| sections(&bytes).get(section) != Some(body);
        let differing: Vec<_> = sections(&theirs).into_iter().filter(differs).map(|(section, _)| section).collect();
        assert_eq!(differing, Vec::<String>::new(), "{name}");
        assert!(theirs == bytes, "{name}");
    }
}

/// A deal without its last record, summary and proofs made to fit.
fn shortened(bytes: &[u8]) -> Vec<u8> {
    forged(bytes, |sections| {
        let records = sections.keys().filter(|name| name.starts_with("record/")).count();
        sections.remove(&format!("record/{records:08}"));
        let last = &sections[&format!("record/{:08}", records - 1)];
        let mut deal: DealFile = serde_json::from_slice(&sections["deal.json"]).unwrap();
        (deal.records, deal.last_position) = (records as u64 - 1, u64::from_be_bytes(last[10..18].try_into().unwrap()));
        let link = format!("0x{}", hex::encode(&last[last.len() - 32..]));
        deal.last_link = serde_json::from_value(link.into()).unwrap();
        sections.insert("deal.json".into(), serde_json::to_vec(&deal).unwrap());
        if let Some(proofs) = sections.get_mut("proofs.json") {
            let text = String::from_utf8(proofs.clone()).unwrap();
            let (inclusion, head) = text.split_once("]],\"head\"").unwrap();
            let (kept, _) = inclusion.rsplit_once(",[").unwrap();
            *proofs = format!("{kept}],\"head\"{head}").into_bytes();
        }
    })
}

#[test]
fn a_record_left_out_is_found_where_the_log_is_signed_and_only_there() {
    let mut engine = Engine::new();
    let [open, other] = ["open", "other"].map(|name| script(&TermsBuilder::new(name).without_contract()));
    engine.begin(&open, 0, None);
    engine.begin(&other, 1, None);
    sign(&engine.store, log_key());
    let bytes = export(&engine.store, &open.terms().deal_id(), None).unwrap();
    let unsigned = forged(&bytes, |it| it.retain(|section, _| !LOG_SECTIONS.contains(&section.as_str())));
    let mut files = Files::new();
    for (name, bytes, sound) in [
        ("signed", bytes.clone(), true),
        ("unsigned", unsigned.clone(), true),
        ("unsigned and shorter", shortened(&unsigned), true),
        ("signed and shorter", shortened(&bytes), false),
    ] {
        assert_eq!(is_sound(&bytes), sound, "{name}");
        files.add(name, &bytes);
    }
    for (name, claims) in files.verified() {
        let last = claims.last().unwrap();
        match name {
            "signed and shorter" => assert!(last.starts_with("failed    complete: "), "{claims:#?}"),
            _ => assert!(!last.starts_with("failed"), "{name}: {claims:#?}"),
        }
    }
}

#[test]
fn vectors_of_the_log_are_fresh_and_hold_by_the_other_way_of_reckoning() {
    let folder = tests().join("data/tlog");
    for script in ["make_tlog_vectors.py", "check_tlog_vectors.py"] {
        let arguments: &[&Path] =
            if script.starts_with("make") { &[Path::new("--check"), &folder] } else { &[&folder] };
        let (good, text) = python(script, arguments);
        assert!(good, "{script}: {text}");
    }
}
