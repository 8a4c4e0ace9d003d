//! Backups: made beside a running writer, restored whole or not at all, and every changed byte of them is noticed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tribunal_engine::store::{
    Append, Fsync, Record, Store,
    backup::{BackupFault, back_up, newest, restore, verify},
};

use crate::{
    store::{deal, event, stream},
    store_damage::{filled, limited, text, tribunal},
};

fn records(path: &Path) -> Vec<Record> {
    Store::open_read_only(path).unwrap().log(1).collect::<Result<_, _>>().unwrap()
}

fn backed_up(dir: &Path) -> (Store, PathBuf) {
    let store = filled(&dir.join("store"));
    let journal = dir.join("journal");
    fs::write(&journal, "a line\n").unwrap();
    let reader = Store::open_read_only(dir.join("store")).unwrap();
    let beside = [("one.cases.jsonl".to_owned(), journal)];
    back_up(&reader, &dir.join("backups"), &beside).unwrap();
    (store, dir.join("backups"))
}

#[test]
fn a_backup_made_beside_a_writer_restores_to_the_same_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, backups) = backed_up(dir.path());
    let before = records(&dir.path().join("store"));
    let one = |number: u64| Append {
        streams: vec![stream(deal(500), number, vec![event(1 << 50 | number, 100)])],
        ..Append::default()
    };
    store.append(one(0)).unwrap();
    let reader = Store::open_read_only(dir.path().join("store")).unwrap();
    let second = back_up(&reader, &backups, &[]).unwrap();
    assert_eq!((second.generation, second.position), (2, before.len() as u64 + 1));
    assert_eq!(newest(&backups).unwrap(), backups.join("000002"));

    let to = dir.path().join("restored");
    let (backup, report) = restore(&backups.join("000001"), &to, |_, _| {}).unwrap();
    assert_eq!((backup.position, report.records), (before.len() as u64, before.len() as u64));
    assert_eq!(records(&to), before);
    assert!(!dir.path().join("restored.restoring").exists() && !to.join("one.cases.jsonl").exists());
    // A restored store is written on, and still guards its end.
    let restored = Store::open(&to, Fsync::Always).unwrap();
    assert_eq!(restored.append(one(0)).unwrap()[0].position, before.len() as u64 + 1);
    drop(restored);
    assert!(Store::check_path(&to, |_, _, _| {}).unwrap().damage.is_empty());
    // Rows of every kind came along.
    let (old, new) = (&store, Store::open_read_only(&to).unwrap());
    assert_eq!(new.outbox().unwrap(), old.outbox().unwrap());
    assert_eq!(new.intents().unwrap(), old.intents().unwrap());
    assert_eq!(new.cursor("DEALS").unwrap(), old.cursor("DEALS").unwrap());
    assert_eq!(new.refused(99).unwrap(), old.refused(99).unwrap());
    assert_eq!(new.meta("origin").unwrap(), old.meta("origin").unwrap());
}

#[test]
fn a_restore_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, backups) = backed_up(dir.path());
    let generation = newest(&backups).unwrap();
    let to = dir.path().join("taken");
    fs::create_dir(&to).unwrap();
    assert!(matches!(restore(&generation, &to, |_, _| {}), Err(BackupFault::Exists { .. })), "an empty folder, too");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
    assert!(matches!(restore(&generation, &link, |_, _| {}), Err(BackupFault::Exists { .. })));
    let running = dir.path().join("other.restoring");
    fs::create_dir(&running).unwrap();
    let other = dir.path().join("other");
    assert!(matches!(restore(&generation, &other, |_, _| {}), Err(BackupFault::HalfMade { .. })));
    assert!(running.exists() && !other.exists());
    assert!(newest(dir.path()).is_ok(), "a folder with a store in it is taken for a backup");
    let fault = verify(dir.path(), |_, _| {}).unwrap_err();
    assert!(matches!(fault, BackupFault::Damaged { .. }), "and found to have no list: {fault}");
}

/// What a restore says of a damaged backup; it must leave nothing.
fn refused(generation: &Path, to: &Path) -> String {
    let fault = restore(generation, to, |_, _| {}).unwrap_err();
    assert!(matches!(fault, BackupFault::Damaged { .. }), "{fault}");
    let left: Vec<_> = fs::read_dir(to.parent().unwrap()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    fault.to_string()
}

#[test]
fn any_changed_missing_or_added_file_of_a_backup_is_named_and_nothing_is_restored() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_store, backups) = backed_up(dir.path());
    let (generation, to) = (newest(&backups).unwrap(), out.path().join("restored"));
    let mut names = vec!["BACKUP".to_owned()];
    names.extend(verify(&generation, |_, _| {}).unwrap().files.into_iter().map(|file| file.name));
    assert!(names.iter().any(|name| name == "beside/one.cases.jsonl") && names.len() > 5, "{names:?}");
    for name in &names {
        let path = generation.join(name);
        let sound = fs::read(&path).unwrap();
        let places: Vec<usize> = match &name[..] {
            // Every byte of the list: a small letter of a digest must not pass for a capital one.
            "BACKUP" => (0..sound.len()).collect(),
            _ => (0..sound.len()).step_by((sound.len() / 9).max(1)).chain([sound.len() - 1]).collect(),
        };
        for at in places {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x20;
            fs::write(&path, &bytes).unwrap();
            assert!(refused(&generation, &to).contains(name), "byte {at} of {name}");
        }
        for left in [0, sound.len() / 2, sound.len() - 1] {
            fs::write(&path, &sound[..left]).unwrap();
            assert!(refused(&generation, &to).contains(name), "{name} cut to {left}");
        }
        fs::remove_file(&path).unwrap();
        let missing = refused(&generation, &to);
        assert!(missing.contains(name) && missing.contains("missing"), "{missing}");
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(refused(&generation, &to).contains(name), "a link in the place of {name}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, &sound).unwrap();
        for stray in [format!("{name}.more"), format!("store/{}", name.replace('/', "-"))] {
            fs::write(generation.join(&stray), "more").unwrap();
            assert!(refused(&generation, &to).contains(&stray), "{stray} is not in the list");
            fs::remove_file(generation.join(&stray)).unwrap();
        }
    }
    restore(&generation, &to, |_, _| {}).unwrap();
}

#[test]
fn a_list_that_leads_out_of_the_backup_is_refused() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_store, backups) = backed_up(dir.path());
    let (generation, to) = (newest(&backups).unwrap(), out.path().join("restored"));
    let path = generation.join("BACKUP");
    let sound = fs::read_to_string(&path).unwrap();
    let line = sound.lines().next().unwrap();
    let places = [
        "../../etc/passwd",
        "store/../../x",
        "/etc/passwd",
        "store//etc/passwd",
        "store/",
        "store/a/b",
        "other/x",
        "store/.",
    ];
    for place in places {
        let list = format!("{}\n", line.replace("beside/one.cases.jsonl", place));
        fs::write(&path, format!("{list}blake3 {}\n", blake3::hash(list.as_bytes()).to_hex())).unwrap();
        let fault = refused(&generation, &to);
        assert!(fault.contains("no place in a backup"), "{place}: {fault}");
    }
}

#[test]
fn the_commands_back_up_beside_an_engine_and_say_what_a_restored_store_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let store = filled(&dir.path().join("store"));
    for (name, text) in [("store.history.jsonl", "secret"), ("store.transactions.jsonl", "secret")] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    fs::create_dir(dir.path().join("store.markets")).unwrap();
    fs::write(dir.path().join("store.markets/m.cases.jsonl"), "{}\n").unwrap();
    fs::write(dir.path().join("store.markets/m.transactions.jsonl"), "secret").unwrap();
    let key = dir.path().join("store/operator-dev-key.json");
    fs::write(&key, "secret").unwrap();
    let made = tribunal(&["store", "backup", &at("backups"), "--store", &at("store"), "--json"]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    let answer: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let names: Vec<_> = answer["files"].as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"beside/m.cases.jsonl"), "{names:?}");
    assert!(
        names.iter().all(|name| !name.contains("key") && !name.contains("history") && !name.contains("transactions"))
    );
    assert_eq!(answer["position"], 252);

    store.append(Append { streams: vec![stream(deal(700), 0, vec![event(1 << 51, 9)])], ..Append::default() }).unwrap();
    fs::write(dir.path().join("tribunal.toml"), format!("[store]\npath = {:?}\n", at("store"))).unwrap();
    let args = ["store", "restore", &at("backups"), "--store", &at("new"), "--config", &at("tribunal.toml")];
    let restored = tribunal(&args);
    assert_eq!(restored.status.code(), Some(0), "{restored:?}");
    let said = text(&restored.stdout);
    for part in [
        "ends at position 252",
        "position 253: 1 records are behind",
        "from message 43 of DEALS",
        "beside/m.cases.jsonl",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(tribunal(&args).status.code(), Some(69), "it is there now");
    assert!(!dir.path().join("new.history.jsonl").exists());
    assert_eq!(tribunal(&["store", "check", "--store", &at("new")]).status.code(), Some(0));
    assert_eq!(tribunal(&["store", "check", "--backup", &at("backups")]).status.code(), Some(0));
    let current = dir.path().join("backups/000001/store/CURRENT");
    fs::write(&current, "MANIFEST-000001\n").unwrap();
    let damaged = tribunal(&["store", "check", "--backup", &at("backups")]);
    assert_eq!(damaged.status.code(), Some(1), "{damaged:?}");
    assert!(text(&damaged.stdout).contains("store/CURRENT"), "{damaged:?}");
    let refused = tribunal(&["store", "restore", &at("backups"), "--store", &at("newer")]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("store/CURRENT") && !dir.path().join("newer").exists(), "{refused:?}");
}

#[test]
fn a_disk_that_fills_up_leaves_no_backup_and_no_restored_store() {
    let dir = tempfile::tempdir().unwrap();
    let (store, backups) = backed_up(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_tribunal"));
    let full = "trap '' XFSZ; ulimit -f 40"; // 20 KiB
    let made = limited(full, &program, &["store", "backup", &at("backups"), "--store", &at("store")]).output().unwrap();
    assert!(matches!(made.status.code(), Some(69 | 1)), "{made:?}");
    assert!(text(&made.stderr).contains("too large") || text(&made.stderr).contains("writing"), "{made:?}");
    let left: Vec<_> = fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "000001" || name == "LOCK"), "{left:?}");
    let args = ["store", "restore", &at("backups"), "--store", &at("new")];
    let made = limited(full, &program, &args).output().unwrap();
    assert!(matches!(made.status.code(), Some(69 | 1)), "{made:?}");
    assert!(text(&made.stderr).contains("too large"), "{made:?}");
    assert!(!dir.path().join("new").exists() && !dir.path().join("new.restoring").exists());
    // With space again, both work, and the store lost nothing.
    back_up(&Store::open_read_only(dir.path().join("store")).unwrap(), &backups, &[]).unwrap();
    assert_eq!(tribunal(&args).status.code(), Some(0));
    assert_eq!(records(&dir.path().join("new")).len() as u64, store.last_position());
}

#[test]
fn two_backups_at_once_are_refused_by_name_and_a_half_made_one_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, backups) = backed_up(dir.path());
    let reader = Store::open_read_only(dir.path().join("store")).unwrap();
    let held = fs::File::create(backups.join("LOCK")).unwrap();
    held.lock().unwrap();
    assert!(matches!(back_up(&reader, &backups, &[]), Err(BackupFault::Busy { .. })));
    held.unlock().unwrap();
    // A backup that was killed leaves this.
    fs::create_dir_all(backups.join("000002.part/store")).unwrap();
    assert_eq!(newest(&backups).unwrap(), backups.join("000001"));
    assert_eq!(back_up(&reader, &backups, &[]).unwrap().generation, 2);
    assert!(!backups.join("000002.part").exists());
}
