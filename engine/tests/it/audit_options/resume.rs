//! Audits that are broken off and go on.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tribunal_engine::{
    audit::{Against, AuditFault, AuditOptions, AuditReport, ProgressFault, Resume, Scope, audit},
    store::Store,
};
use tribunal_fixtures::{START_S, TermsBuilder, keys};
use tribunal_verifiers::{OperatorLimits, Service};

use super::{audited, policy, proposals, tribunal};
use crate::audit::{Engine, caught, cheated, copied, find, played, script, wordcount};

fn resume(folder: &TempDir) -> Resume {
    Resume { path: folder.path().join("progress"), every: Duration::ZERO, context: String::new() }
}

fn json(report: &AuditReport) -> String {
    serde_json::to_string_pretty(report).unwrap()
}

/// Every state in which a kill could have left the file.
fn states(store: &Store, options: AuditOptions<'_>) -> (AuditReport, BTreeSet<Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let resume = resume(&folder);
    let states = Mutex::new(BTreeSet::new());
    let look = |_, _| {
        states.lock().unwrap().insert(std::fs::read(&resume.path).unwrap());
    };
    let report = audited(store, AuditOptions { resume: Some(&resume), progress: Some(&look), ..options });
    let mut states = states.into_inner().unwrap();
    states.insert(std::fs::read(&resume.path).unwrap());
    (report, states)
}

#[test]
fn an_audit_that_was_broken_off_ends_as_an_unbroken_one() {
    let (mut engine, source) = played();
    for number in 0..20 {
        let it = script(&TermsBuilder::new(&format!("more {number}")).agree_by_s(START_S + 1_000).without_contract());
        engine.begin(&it, 700, None);
    }
    let service = Service::new(OperatorLimits::default(), Vec::new());
    // One that has something to say of every kind: a discrepancy, notes, changes.
    let it = caught();
    let (_folder, store) = copied(&engine.store, |records| {
        let index = find(records, &it, "verdict_reached");
        let kind = records[index].kind();
        records[index].forge(&it, &kind, &keys::key("stranger"));
    });
    let other = policy("[settlement]\nvictim_bps = 100\n");
    let against = Against { policy: &other, service: &service, source: &source };
    let options =
        AuditOptions { reverify: Some((&service, &source)), against: Some(against), ..AuditOptions::default() };
    let unbroken = audited(&store, options);
    assert!(unbroken.discrepancy_count > 0 && unbroken.against.as_ref().unwrap().changed_count > 0);
    let (report, states) = states(&store, options);
    assert_eq!(json(&report), json(&unbroken));
    // Before the first deal, at the end, and between.
    assert!(states.len() > 3, "{}", states.len());
    let folder = tempfile::tempdir().unwrap();
    let resume = resume(&folder);
    let mut skipped = 0;
    for state in states {
        std::fs::write(&resume.path, state).unwrap();
        let steps = AtomicU64::new(0);
        let count = |_, _| {
            steps.fetch_add(1, Ordering::Relaxed);
        };
        let report = audited(&store, AuditOptions { resume: Some(&resume), progress: Some(&count), ..options });
        assert_eq!(json(&report), json(&unbroken));
        skipped += u64::from(steps.into_inner() < store.last_position());
        // And it is done now.
        let none = |_, _| panic!("nothing is left to do");
        let again = audited(&store, AuditOptions { resume: Some(&resume), progress: Some(&none), ..options });
        assert_eq!(json(&again), json(&unbroken));
    }
    assert!(skipped > 2, "{skipped}");
}

#[test]
fn deals_that_went_on_are_audited_again() {
    let folder = tempfile::tempdir().unwrap();
    let resume = resume(&folder);
    let mut engine = Engine::new();
    let (honest, mut source) = wordcount();
    let (lie, others) = cheated();
    for (_, bytes) in &lie.expected {
        source.add(bytes.clone());
    }
    drop(others);
    let deals: Vec<_> = (0..12).map(|number| script(&TermsBuilder::new(&format!("goes on {number}")))).collect();
    let service = Service::new(OperatorLimits::default(), Vec::new());
    let options = AuditOptions { reverify: Some((&service, &source)), ..AuditOptions::default() };
    let again = |engine: &Engine| {
        let report = audited(&engine.store, AuditOptions { resume: Some(&resume), ..options });
        assert_eq!(json(&report), json(&audited(&engine.store, options)));
        report
    };
    for (number, it) in deals.iter().enumerate() {
        engine.begin(it, number as u64, Some(if number % 3 == 0 { lie.claim(1) } else { honest.claim(1) }));
    }
    assert_eq!(again(&engine).outcomes["open"], 12);
    for it in &deals[..6] {
        engine.say(40, &it.accepted());
    }
    // Some that are new as well, with ids on either side.
    for number in 0..6 {
        engine.begin(&script(&TermsBuilder::new(&format!("new {number}"))), 50, None);
    }
    let report = again(&engine);
    assert_eq!((report.outcomes["open"], report.outcomes["accepted"]), (12, 6));
    assert_eq!(report.notes.iter().filter(|note| note.code == "unjudged").count(), 2, "{:#?}", report.notes);
    for it in &deals[6..] {
        engine.say(60, &it.accepted());
    }
    assert_eq!(again(&engine).outcomes["accepted"], 12);
    again(&engine);
}

#[test]
fn a_file_of_something_else_is_refused_by_name() {
    let (engine, source) = played();
    let folder = tempfile::tempdir().unwrap();
    let resume = resume(&folder);
    let plain = AuditOptions { resume: Some(&resume), ..AuditOptions::default() };
    audited(&engine.store, plain);
    let fault = |store: &Store, options: AuditOptions<'_>| match audit(store, Scope::All, options) {
        Err(AuditFault::Progress(fault)) => fault,
        other => panic!("{other:?}"),
    };
    let named = resume.path.display().to_string();
    // Other options.
    let service = Service::new(OperatorLimits::default(), Vec::new());
    let other = fault(&engine.store, AuditOptions { reverify: Some((&service, &source)), ..plain });
    assert!(matches!(other, ProgressFault::OtherOptions { .. }) && other.to_string().contains(&named), "{other}");
    let elsewhere = Resume { context: "artifacts elsewhere".into(), ..resume.clone() };
    let other = fault(&engine.store, AuditOptions { resume: Some(&elsewhere), ..plain });
    assert!(matches!(other, ProgressFault::OtherOptions { .. }), "{other}");
    // Another store: its first record is another one.
    let mut stranger = Engine::new();
    stranger.begin(&script(&TermsBuilder::new("elsewhere")), 0, None);
    let other = fault(&stranger.store, plain);
    assert!(matches!(other, ProgressFault::OtherStore { .. }) && other.to_string().contains(&named), "{other}");
    // A log that was longer.
    let (_short, store) = copied(&engine.store, |records| records.truncate(5));
    assert!(matches!(fault(&store, plain), ProgressFault::OtherStore { .. }));
    // History that was changed since, beyond the first record.
    let it = caught();
    let (_changed, store) = copied(&engine.store, |records| {
        let index = find(records, &it, "disputed");
        records[index].new.signer = keys::address("stranger");
    });
    let other = fault(&store, plain);
    assert!(matches!(other, ProgressFault::Rewritten { .. }) && other.to_string().contains(&named), "{other}");
    // The right one goes on.
    assert!(audited(&engine.store, plain).is_clean());
}

#[test]
fn a_damaged_file_is_refused_by_name() {
    let (engine, _) = played();
    let folder = tempfile::tempdir().unwrap();
    let resume = resume(&folder);
    let options = AuditOptions { resume: Some(&resume), ..AuditOptions::default() };
    audited(&engine.store, options);
    let good = std::fs::read(&resume.path).unwrap();
    let mut damaged: Vec<Vec<u8>> =
        [0, 1, 20, 90, good.len() / 2, good.len() - 1].map(|end| good[..end].to_vec()).into();
    for index in (0..good.len()).step_by(7).chain([good.len() - 1]) {
        let mut bytes = good.clone();
        bytes[index] ^= 1;
        damaged.push(bytes);
    }
    for bytes in damaged {
        std::fs::write(&resume.path, &bytes).unwrap();
        match audit(&engine.store, Scope::All, options) {
            Err(AuditFault::Progress(fault @ ProgressFault::Damaged { .. })) => {
                assert!(fault.to_string().contains(&resume.path.display().to_string()), "{fault}");
            }
            other => panic!("{other:?} of {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    let nowhere = Resume { path: folder.path().join("no/such/folder"), ..resume.clone() };
    let options = AuditOptions { resume: Some(&nowhere), ..AuditOptions::default() };
    assert!(matches!(audit(&engine.store, Scope::All, options), Err(AuditFault::Progress(ProgressFault::Io { .. }))));
}

#[test]
fn a_killed_audit_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    drop(proposals(&folder.path().join("store"), 3_000));
    let file = folder.path().join("progress");
    let args = ["--json", "audit", "--all", "--store", "store", "--resume", "progress"];
    for _ in 0..3 {
        let mut child = tribunal(folder.path(), &args).spawn().unwrap();
        while !file.exists() && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let output = tribunal(folder.path(), &args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let whole = tribunal(folder.path(), &["--json", "audit", "--all", "--store", "store"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&whole.stdout));
    // With other options it is refused, and so is a list of deals.
    let other = tribunal(folder.path(), &[&args[..], &["--at", "7"]].concat()).output().unwrap();
    assert_eq!(other.status.code(), Some(64), "{other:?}");
    assert!(String::from_utf8_lossy(&other.stderr).contains("progress was made with other options"), "{other:?}");
}
