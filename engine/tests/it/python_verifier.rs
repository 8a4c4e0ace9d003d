//! Evidence read by a second hand: a verifier in Python, written from the format's documentation alone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use tribunal_engine::{
    bundle::{DealFile, VerifyOptions, export, read, verify, write},
    demo::{self, BusChoice},
};

use crate::audit::{caught, drawn, played};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Runs one of the scripts; whether it ended well, and what it said.
#[track_caller]
fn python(script: &str, arguments: &[&Path]) -> (bool, String) {
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
    let mut files = Files::new();
    for deal in played.iter().filter(|deal| deal.outcome != "refused") {
        let artifacts = stage.artifacts.as_ref();
        files.add(&deal.name, &export(stage.engine.store(), &deal.deal_id, Some(artifacts)).unwrap());
    }
    stage.engine.shutdown(std::time::Duration::from_secs(60)).await;
    assert!(files.names.len() >= 10, "{:?}", files.names);
    for (name, claims) in files.verified() {
        for claim in ["file", "terms", "records", "signatures", "consent", "votes", "contents"] {
            let proved = format!("proved    {claim}: ");
            assert!(claims.iter().any(|line| line.starts_with(&proved)), "{name}: {claim} in {claims:#?}");
        }
    }
}

#[test]
fn a_second_verifier_refuses_whatever_the_first_one_does() {
    let (engine, source) = played();
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
        files.add(format!("{deal} twice"), &[bytes.as_slice(), bytes.as_slice()].concat());
        let other = if deal == "caught" { &panel } else { &whole };
        for name in ["record/00000001", "record/00000003", "terms", "deal.json"] {
            let mixed = forged(bytes, |mine| drop(mine.insert(name.to_owned(), sections(other)[name].clone())));
            files.add(format!("{deal} with the other's {name}"), &mixed);
        }
    }
    assert!(files.names.len() > 200, "{}", files.names.len());
    files.assert_all_refused();
}

#[test]
fn a_second_verifier_reads_checkpoints_and_proofs_of_a_log_made_by_a_third_hand() {
    let (engine, source) = played();
    let plain = Files::new();
    let out = plain.folder.path().join("logged");
    let mut arguments = vec![out.clone()];
    for deal in engine.store.deals() {
        let (deal_id, _) = deal.unwrap();
        let path = plain.path(&deal_id.to_string());
        std::fs::write(&path, export(&engine.store, &deal_id, Some(&source)).unwrap()).unwrap();
        arguments.push(path);
    }
    let (made, text) = python("log_bundles.py", &arguments.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    assert!(made, "{text}");
    let mut logged = Files::new();
    for file in std::fs::read_dir(out).unwrap() {
        let path = file.unwrap().path();
        logged.add(path.file_name().unwrap().to_string_lossy(), &std::fs::read(&path).unwrap());
    }
    for (name, claims) in logged.verified() {
        for claim in ["proved    log key", "attested  checkpoint", "proved    inclusion", "proved    complete"] {
            assert!(claims.iter().any(|line| line.starts_with(claim)), "{name}: {claim} in {claims:#?}");
        }
    }
}

#[test]
fn without_its_last_record_a_deal_is_whole_only_where_no_log_says_more() {
    let (engine, source) = played();
    let bytes = export(&engine.store, &drawn().terms().deal_id(), Some(&source)).unwrap();
    let shorter = forged(&bytes, |sections| {
        let records = sections.keys().filter(|name| name.starts_with("record/")).count();
        sections.remove(&format!("record/{records:08}"));
        let last = &sections[&format!("record/{:08}", records - 1)];
        let mut deal: DealFile = serde_json::from_slice(&sections["deal.json"]).unwrap();
        (deal.records, deal.last_position) = (records as u64 - 1, u64::from_be_bytes(last[10..18].try_into().unwrap()));
        let link = format!("0x{}", hex::encode(&last[last.len() - 32..]));
        deal.last_link = serde_json::from_value(link.into()).unwrap();
        sections.insert("deal.json".into(), serde_json::to_vec(&deal).unwrap());
    });
    assert!(is_sound(&shorter), "nobody signed that the deal goes on");
    let mut files = Files::new();
    files.add("whole", &bytes);
    files.add("shorter", &shorter);
    for (name, claims) in files.verified() {
        assert!(claims.last().is_some_and(|line| !line.starts_with("failed")), "{name}: {claims:#?}");
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
