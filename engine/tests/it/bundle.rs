//! Evidence files: written from a store, verified with nothing else, and changed in every way.

use std::{collections::BTreeMap, sync::Arc};

use tribunal_engine::{
    bundle::{
        BundleFault, BundleReport, DealFile, ExportFault, MAGIC, Standing, VerifyOptions, decode_frame, encode_frame,
        export, read, verify, write,
    },
    log::LogSigner,
    store::{Record, Store},
};
use tribunal_events::{
    Address, Amount, DealId, EventKind, Timestamp, VerdictKind,
    tlog::{LogCertificate, LogKey, LogVerifier},
};
use tribunal_fixtures::{Script, TermsBuilder, engine_message, keys};
use tribunal_verifiers::{ArtifactSource, MemorySource};

use crate::audit::{Engine, caught, cheated, drawn, played, script};

/// The file of a deal.
fn file(engine: &Engine, script: &Script, source: &MemorySource) -> Vec<u8> {
    export(&engine.store, &script.terms().deal_id(), Some(source)).unwrap()
}

fn plain(bytes: &[u8]) -> Result<BundleReport, BundleFault> {
    verify(bytes, &VerifyOptions::default())
}

fn trusting(bytes: &[u8], names: &[&str]) -> BundleReport {
    let trust = names.iter().map(|name| keys::address(name)).collect();
    verify(bytes, &VerifyOptions { trust, ..VerifyOptions::default() }).unwrap()
}

/// A file after a change to its sections, with all digests right again: what a forger would hand over.
fn forged(bytes: &[u8], change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Vec<u8> {
    let sections = read(bytes).unwrap();
    let mut sections = sections.into_iter().map(|(name, body)| (name.to_owned(), body.to_vec())).collect();
    change(&mut sections);
    write(&sections)
}

/// A file after a change to its records; chain and summary are made to fit again.
fn retold(bytes: &[u8], change: impl FnOnce(&mut Vec<Record>)) -> Vec<u8> {
    forged(bytes, |sections| {
        let names: Vec<String> = sections.keys().filter(|name| name.starts_with("record/")).cloned().collect();
        let mut records: Vec<Record> =
            names.iter().map(|name| decode_frame(&sections.remove(name).unwrap()).unwrap()).collect();
        change(&mut records);
        let mut link = tribunal_events::ChainLink::GENESIS;
        for (version, record) in (1..).zip(&mut records) {
            (record.version, record.previous) = (version, link);
            record.event_id = record.envelope.event_id();
            link = record.previous.extend(&tribunal_engine::store::record_bytes(record));
            record.link = link;
            sections.insert(format!("record/{version:08}"), encode_frame(record));
        }
        let mut deal: DealFile = serde_json::from_slice(&sections["deal.json"]).unwrap();
        (deal.records, deal.last_link) = (records.len() as u64, link);
        (deal.first_position, deal.last_position) = (records[0].position, records[records.len() - 1].position);
        sections.insert("deal.json".into(), serde_json::to_vec(&deal).unwrap());
    })
}

fn kind(record: &Record) -> EventKind {
    record.envelope.clone().parse().unwrap().into_kind()
}

fn find(records: &[Record], name: &str) -> usize {
    records.iter().position(|record| kind(record).name() == name).expect(name)
}

#[track_caller]
fn assert_unsound(bytes: &[u8], code: &str, claim: &str) {
    let report = plain(bytes).unwrap();
    assert!(!report.is_sound());
    assert!(report.discrepancies.iter().any(|it| it.code == code), "no {code} in {:#?}", report.discrepancies);
    if !claim.is_empty() {
        assert_eq!(report.standing(claim), Some(Standing::Failed), "{:#?}", report.claims);
    }
}

#[test]
fn every_deal_of_the_store_is_sound_in_a_file() {
    let (engine, source) = played();
    for deal in engine.store.deals() {
        let (deal_id, head) = deal.unwrap();
        let bytes = export(&engine.store, &deal_id, Some(&source)).unwrap();
        assert_eq!(bytes, export(&engine.store, &deal_id, Some(&source)).unwrap(), "the same deal, another file");
        let report = plain(&bytes).unwrap();
        assert!(report.is_sound(), "{:#?} {:#?}", report.discrepancies, report.claims);
        assert_eq!((report.deal_id, report.deal.records, report.deal.last_link), (deal_id, head.version, head.link));
        assert_eq!(report.deal.operator, keys::address("operator"));
        for claim in ["file", "contents", "records", "signatures", "rules", "consent"] {
            assert_eq!(report.standing(claim), Some(Standing::Proved), "{claim}: {:#?}", report.claims);
        }
        for claim in ["times", "log", "complete"] {
            assert_eq!(report.standing(claim), Some(Standing::NotCheckableOffline), "{claim}");
        }
        assert_eq!(report.trusted, None);
        assert_eq!(report.rests_on[0].account, keys::address("operator"));
    }
}

#[test]
fn a_verdict_is_proved_with_artifacts_and_attested_without() {
    let (engine, source) = played();
    let it = caught();
    let whole = plain(&file(&engine, &it, &source)).unwrap();
    assert_eq!((whole.outcome, whole.reason_code.as_str(), whole.state), ("invalid", "output-differs", "settled"));
    assert_eq!(whole.standing("verdict"), Some(Standing::Proved), "{:#?}", whole.claims);
    assert_eq!(whole.standing("money"), Some(Standing::Proved));
    assert_eq!(whole.standing("end"), Some(Standing::Proved));
    assert_eq!(whole.standing("chain"), Some(Standing::NotCheckableOffline));
    assert_eq!(whole.rests_on.iter().map(|word| word.role).collect::<Vec<_>>(), ["operator"]);
    assert!(whole.deal.left_out.is_empty());

    let bytes = export(&engine.store, &it.terms().deal_id(), None).unwrap();
    let bare = plain(&bytes).unwrap();
    assert!(bare.is_sound(), "{:#?}", bare.claims);
    assert_eq!(bare.standing("verdict"), Some(Standing::Attested), "{:#?}", bare.claims);
    assert_eq!(bare.standing("artifacts"), Some(Standing::NotCheckableOffline));
    assert_eq!(bare.deal.left_out.len(), 4, "module, input, output, stdout");
    let words: Vec<_> = bare.rests_on.iter().map(|word| (word.role, word.account)).collect();
    assert_eq!(words, [("operator", keys::address("operator")), ("mediator", keys::address("m1"))]);
}

#[test]
fn trust_must_cover_whose_word_the_result_rests_on() {
    let (engine, source) = played();
    let it = caught();
    let whole = file(&engine, &it, &source);
    assert!(trusting(&whole, &["operator"]).is_sound());
    assert!(!trusting(&whole, &["stranger", "m1"]).is_sound());
    assert_eq!(trusting(&whole, &["stranger"]).trusted, Some(false));
    let bare = export(&engine.store, &it.terms().deal_id(), None).unwrap();
    assert!(!trusting(&bare, &["operator"]).is_sound());
    assert!(trusting(&bare, &["operator", "m1"]).is_sound());
    // Of a panel a quorum must be trusted.
    let bare = export(&engine.store, &drawn().terms().deal_id(), None).unwrap();
    let members: Vec<Address> = plain(&bare).unwrap().rests_on[1..].iter().map(|word| word.account).collect();
    assert_eq!(members.len(), 3);
    for (count, sound) in [(0, false), (1, false), (2, true), (3, true)] {
        let trust = members[..count].iter().copied().chain([keys::address("operator")]).collect();
        let report = verify(&bare, &VerifyOptions { trust, ..VerifyOptions::default() }).unwrap();
        assert_eq!(report.is_sound(), sound, "{count} trusted");
    }
}

#[test]
fn any_flipped_byte_is_caught() {
    let (engine, _) = played();
    let bytes = export(&engine.store, &drawn().terms().deal_id(), None).unwrap();
    let bits = [1, 0x80];
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= bits[at % 2];
        let fault = plain(&changed).expect_err("a changed byte");
        match at < MAGIC.len() {
            true => assert_eq!(fault, BundleFault::NoBundle, "byte {at}"),
            false => assert!(matches!(fault, BundleFault::Changed(_)), "byte {at}: {fault}"),
        }
    }
}

#[test]
fn a_flipped_byte_is_located() {
    let (engine, source) = played();
    let bytes = file(&engine, &caught(), &source);
    let sections = read(&bytes).unwrap();
    assert!(sections.len() > 10);
    let body = |name: &str| {
        let body = sections[name];
        body.as_ptr() as usize - bytes.as_ptr() as usize + body.len() / 2
    };
    for (name, body) in sections.keys().map(|name| (name, body(name))) {
        let mut changed = bytes.clone();
        changed[body] ^= 4;
        let fault = plain(&changed).unwrap_err().to_string();
        assert!(fault.contains(&format!("section {name} ")), "{name}: {fault}");
    }
}

#[test]
fn bytes_too_many_or_too_few_are_caught() {
    let (engine, source) = played();
    let bytes = file(&engine, &caught(), &source);
    for end in (0..bytes.len()).step_by(997).chain([bytes.len() - 1, MAGIC.len(), MAGIC.len() + 32]) {
        assert!(plain(&bytes[..end]).is_err(), "cut at {end}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(plain(&longer).is_err());
    assert!(plain(&[bytes.as_slice(), bytes.as_slice()].concat()).is_err());
    for nothing in [&b""[..], b"tribunal-bundle 1\n", b"{}", &[0; 4096]] {
        assert_eq!(plain(nothing).unwrap_err(), BundleFault::NoBundle);
    }
}

/// A file with this text between the first line and the digest, which is right.
fn sealed(rest: &[u8]) -> Vec<u8> {
    let mut bytes = [MAGIC, rest].concat();
    let digest = blake3::derive_key("tribunal.v1 bundle", &bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

#[test]
fn a_form_that_is_not_the_one_form_is_refused() {
    let digest = blake3::hash(b"x").to_hex();
    let line = |length: &str, name: &str| format!("{digest} {length} {name}\n");
    let refused = |rest: String| match plain(&sealed(rest.as_bytes())) {
        Err(fault) => fault.to_string(),
        Ok(report) => panic!("{rest:?} passes: {report:#?}"),
    };
    assert!(refused(format!("{}\nx", line("1", "terms"))).contains("deal.json: the section is missing"));
    assert!(refused(format!("{}{}\nxx", line("1", "terms"), line("1", "terms"))).contains("none twice"));
    assert!(refused(format!("{}{}\nxx", line("1", "terms"), line("1", "deal.json"))).contains("must ascend"));
    assert!(refused(format!("{}\nxx", line("1", "terms"))).contains("1 bytes too many"));
    // Lengths beyond the file allocate nothing.
    assert!(refused(format!("{}\nx", line("18446744073709551615", "terms"))).contains("in the manifest"));
    for length in ["01", "+1", "-1", "1 ", "0x1", "99999999999999999999", ""] {
        assert!(refused(format!("{}\nx", line(length, "terms"))).contains("manifest line 1"), "{length}");
    }
    for name in ["Terms", "te rms", "terms\r", "", "../x\u{e9}", &"a".repeat(101)] {
        assert!(refused(format!("{}\nx", line("1", name))).contains("manifest line 1"), "{name}");
    }
    assert!(refused(format!("{} 1 terms\n\nx", digest.to_uppercase())).contains("manifest line 1"));
    assert!(refused(format!("{digest} 1 terms\n\ny")).contains("digest"));
    assert!(refused("a".repeat(100_000)).contains("manifest line 1"));
}

#[test]
fn sections_that_have_no_place_are_refused() {
    let (engine, source) = played();
    let bytes = file(&engine, &caught(), &source);
    let refused = |change: fn(&mut BTreeMap<String, Vec<u8>>)| plain(&forged(&bytes, change)).unwrap_err().to_string();
    let insert = |name: &str| format!("{name}: ");
    assert!(refused(|it| drop(it.insert("readme".into(), b"hello".to_vec()))).starts_with(&insert("readme")));
    assert!(refused(|it| drop(it.insert("record/1".into(), Vec::new()))).starts_with("record/1"));
    assert!(
        refused(|it| drop(it.insert("record/99999999".into(), it["record/00000001"].clone())))
            .starts_with("record/99999999")
    );
    assert!(refused(|it| drop(it.remove("record/00000003"))).starts_with("record/00000004"));
    assert!(refused(|it| drop(it.remove("terms"))).starts_with("terms"));
    assert!(refused(|it| it.get_mut("record/00000002").unwrap().push(0)).starts_with("record/00000002"));
    assert!(refused(|it| it.get_mut("record/00000002").unwrap()[1] = 1).starts_with("record/00000002"));
    assert!(refused(|it| drop(it.insert("artifact/md5:00".into(), Vec::new()))).starts_with("artifact/md5:00"));
    assert!(refused(|it| drop(it.insert("deal.json".into(), b"{}".to_vec()))).starts_with("deal.json"));
}

#[test]
fn contents_that_do_not_belong_to_the_records_are_found() {
    let (engine, source) = played();
    let bytes = file(&engine, &caught(), &source);
    let artifact =
        |it: &BTreeMap<String, Vec<u8>>| it.keys().find(|name| name.starts_with("artifact/")).unwrap().clone();
    let changed = forged(&bytes, |it| {
        let name = artifact(it);
        it.insert(name, b"other bytes".to_vec());
    });
    assert_unsound(&changed, "artifact", "contents");
    let foreign = forged(&bytes, |it| {
        let name = format!("artifact/{}", tribunal_events::ContentAddress::of(b"foreign"));
        it.insert(name, b"foreign".to_vec());
    });
    assert_unsound(&foreign, "artifact", "contents");
    let hidden = forged(&bytes, |it| drop(it.remove(&artifact(it))));
    assert_unsound(&hidden, "summary", "contents");
    let terms = forged(&bytes, |it| drop(it.insert("terms".into(), drawn().terms().bytes().to_vec())));
    assert_unsound(&terms, "terms", "contents");
    let report = forged(&bytes, |it| {
        let name = it.keys().find(|name| name.starts_with("report/")).unwrap().clone();
        it.insert(name, b"{\"verdict\":\"valid\"}".to_vec());
    });
    assert_unsound(&report, "report", "contents");
    let unreported = forged(&bytes, |it| it.retain(|name, _| !name.starts_with("report/")));
    assert_unsound(&unreported, "report", "contents");
    let operator = forged(&bytes, |it| {
        let mut deal: DealFile = serde_json::from_slice(&it["deal.json"]).unwrap();
        deal.operator = keys::address("stranger");
        it.insert("deal.json".into(), serde_json::to_vec(&deal).unwrap());
    });
    assert_unsound(&operator, "summary", "contents");
    let renamed = forged(&bytes, |it| {
        let mut deal: DealFile = serde_json::from_slice(&it["deal.json"]).unwrap();
        deal.deal_id = DealId::new([1; 32]);
        it.insert("deal.json".into(), serde_json::to_vec(&deal).unwrap());
    });
    assert_unsound(&renamed, "deal-id", "records");
}

#[test]
fn a_retold_history_is_found() {
    let (engine, source) = played();
    let (it, operator) = (caught(), keys::key("operator"));
    let bytes = file(&engine, &it, &source);
    assert!(plain(&retold(&bytes, |_| {})).unwrap().is_sound(), "the retelling itself changes nothing");

    let signer = retold(&bytes, |records| records[1].signer = keys::address("stranger"));
    assert_unsound(&signer, "signer", "signatures");
    let cut = retold(&bytes, |records| drop(records.pop()));
    assert_unsound(&cut, "event-missing", "rules");
    let missing = retold(&bytes, |records| drop(records.remove(find(records, "disputed"))));
    assert_unsound(&missing, "unfounded", "rules");
    let late = retold(&bytes, |records| {
        let from = find(records, "disputed");
        for record in &mut records[from..] {
            record.recorded_at = Timestamp::from_s(record.recorded_at.s() + 10_000);
        }
    });
    assert_unsound(&late, "deadline-missed", "rules");
    let back = retold(&bytes, |records| records[5].recorded_at = Timestamp::from_us(1));
    assert_unsound(&back, "time", "records");

    let paid = retold(&bytes, |records| {
        let index = find(records, "settled");
        let EventKind::Settled { outcome, mut payouts, transaction, block } = kind(&records[index]) else { panic!() };
        (payouts[0].paid, payouts[1].paid) = (payouts[1].paid, payouts[0].paid);
        payouts[3].paid = Amount::ZERO;
        let kind = EventKind::Settled { outcome, payouts, transaction, block };
        records[index].envelope = it.say(engine_message(&kind), &operator);
    });
    assert_unsound(&paid, "payouts", "money");
    let outcome = retold(&bytes, |records| {
        let index = find(records, "verdict_reached");
        let EventKind::VerdictReached { round, reason_code, voters, .. } = kind(&records[index]) else { panic!() };
        let outcome = tribunal_events::Outcome::Valid;
        let kind = EventKind::VerdictReached { round, outcome, reason_code, voters };
        records[index].envelope = it.say(engine_message(&kind), &operator);
    });
    assert_unsound(&outcome, "outcome", "rules");
    let stranger = retold(&bytes, |records| {
        let index = find(records, "verdict_reached");
        let kind = kind(&records[index]);
        records[index].envelope = it.say(engine_message(&kind), &keys::key("stranger"));
        records[index].signer = keys::address("stranger");
    });
    assert_unsound(&stranger, "operator", "signatures");
    let link = forged(&bytes, |sections| {
        let frame = sections.get_mut("record/00000004").unwrap();
        let last = frame.len() - 1;
        frame[last] ^= 1;
    });
    assert_unsound(&link, "link", "records");
    let position = retold(&bytes, |records| {
        records[3].position = records[2].position;
    });
    assert_unsound(&position, "position", "records");
}

#[test]
fn a_panel_of_friends_is_found() {
    let (engine, source) = played();
    let it = drawn();
    let bytes = file(&engine, &it, &source);
    assert!(plain(&bytes).unwrap().standing("draw") == Some(Standing::Proved));
    let friends = retold(&bytes, |records| {
        let index = find(records, "panel_drawn");
        let EventKind::PanelDrawn { round, seed, candidates, panel, panel_signature } = kind(&records[index]) else {
            panic!()
        };
        let outsider = candidates.iter().copied().find(|it| !panel.contains(it)).unwrap();
        let mut panel = [&[outsider], &panel[1..]].concat();
        panel.sort_unstable();
        let kind = EventKind::PanelDrawn { round, seed, candidates, panel, panel_signature };
        records[index].envelope = it.say(engine_message(&kind), &keys::key("operator"));
    });
    assert_unsound(&friends, "panel", "draw");
}

/// Signs the log of a store as its operator's.
fn signed(engine: &Engine) -> LogVerifier {
    let key = LogKey::new("example.org/log", &[3; 32]).unwrap();
    let vkey = key.verifier().clone();
    sign(&engine.store, key);
    vkey
}

/// Signs the log of a store with this key.
pub fn sign(store: &Store, key: LogKey) {
    let signer = LogSigner::open(store, key, &keys::key("operator"), LogSigner::default_path(store.path())).unwrap();
    signer.checkpoint(store).unwrap().unwrap();
}

#[test]
fn a_signed_log_attests_places_times_and_that_nothing_is_left_out() {
    let (mut engine, source) = played();
    let it = caught();
    let vkey = signed(&engine);
    let bytes = file(&engine, &it, &source);
    let report = plain(&bytes).unwrap();
    assert!(report.is_sound(), "{:#?}", report.discrepancies);
    for claim in ["log", "complete", "times"] {
        let claim = report.claims.iter().find(|it| it.claim == claim).unwrap();
        assert_eq!((claim.standing, &claim.by[..]), (Standing::Attested, &[keys::address("operator")][..]));
    }
    let trusting = |key: &LogVerifier| {
        verify(&bytes, &VerifyOptions { trust_logs: vec![key.clone()], ..VerifyOptions::default() }).unwrap()
    };
    assert_eq!(trusting(&vkey).trusted, Some(true));
    let other = LogKey::new("example.org/log", &[4; 32]).unwrap();
    assert!(!trusting(other.verifier()).is_sound());
    let unsigned =
        forged(&bytes, |it| it.retain(|name, _| !["checkpoint", "log-key.json", "proofs.json"].contains(&&**name)));
    assert!(plain(&unsigned).unwrap().is_sound());
    let options = VerifyOptions { trust_logs: vec![vkey], ..VerifyOptions::default() };
    assert!(!verify(&unsigned, &options).unwrap().is_sound(), "no checkpoint, no trusted log");

    // Others move on and the log is signed again: the same deal gives the same file.
    let next = script(&TermsBuilder::new("next").agree_by_s(4_000_000_000));
    engine.begin(&next, 0, None);
    signed(&engine);
    assert_eq!(file(&engine, &it, &source), bytes);
    let (open, settled) = (file(&engine, &next, &source), &bytes);
    assert!(plain(&open).unwrap().is_sound());
    assert_ne!(read(&open).unwrap()["checkpoint"], read(settled).unwrap()["checkpoint"]);
}

#[test]
fn what_the_log_did_not_sign_is_found() {
    let (engine, source) = played();
    signed(&engine);
    let it = caught();
    let bytes = file(&engine, &it, &source);
    // A record less, and a proof less.
    let fewer = forged(&retold(&bytes, |records| drop(records.pop())), |it| {
        let mut proofs: serde_json::Value = serde_json::from_slice(&it["proofs.json"]).unwrap();
        proofs["inclusion"].as_array_mut().unwrap().pop();
        it.insert("proofs.json".into(), serde_json::to_vec(&proofs).unwrap());
    });
    assert_unsound(&fewer, "deal-head", "complete");
    // The operator's own forgery: another time, with a chain that fits.
    let later = retold(&bytes, |records| {
        let last = records.len() - 1;
        records[last].recorded_at = Timestamp::from_us(records[last].recorded_at.us() + 1);
    });
    assert_unsound(&later, "inclusion", "log");
    let other = LogKey::new("example.org/log", &[4; 32]).unwrap();
    let certificate = |it: &mut BTreeMap<String, Vec<u8>>, vkey: &LogVerifier, by: &str| {
        let certificate = LogCertificate::sign(vkey, &keys::key(by)).unwrap();
        it.insert("log-key.json".into(), serde_json::to_vec(&certificate).unwrap());
    };
    let stranger = forged(&bytes, |it| certificate(it, other.verifier(), "stranger"));
    assert_unsound(&stranger, "log-key", "log");
    let stolen = forged(&bytes, |it| {
        let mut own: serde_json::Value = serde_json::from_slice(&it["log-key.json"]).unwrap();
        own["vkey"] = other.verifier().to_string().into();
        it.insert("log-key.json".into(), serde_json::to_vec(&own).unwrap());
    });
    assert_unsound(&stolen, "log-key", "complete");
    let unsigned = forged(&bytes, |it| certificate(it, other.verifier(), "operator"));
    assert_unsound(&unsigned, "checkpoint", "log");
    let longer = forged(&bytes, |it| {
        let mut proofs: serde_json::Value = serde_json::from_slice(&it["proofs.json"]).unwrap();
        proofs["tree_size"] = 1.into();
        it.insert("proofs.json".into(), serde_json::to_vec(&proofs).unwrap());
    });
    assert_unsound(&longer, "inclusion", "log");
    for name in ["checkpoint", "log-key.json", "proofs.json"] {
        let part = forged(&bytes, |it| drop(it.remove(name)));
        assert!(plain(&part).unwrap_err().to_string().starts_with(name), "{name}");
    }
}

#[test]
fn a_bribed_mediator_is_found_offline() {
    let mut engine = Engine::new();
    let (job, source) = cheated();
    let bribed = script(&TermsBuilder::new("bribed"));
    engine.begin(&bribed, 0, Some(job.claim(1)));
    engine.say(3, &bribed.disputed("wrong"));
    let m1 = keys::key("m1");
    engine.say(4, &bribed.verdict_given(&m1, &bribed.vote(&m1, 0, VerdictKind::Valid, 1, "ok")));
    assert_unsound(&file(&engine, &bribed, &source), "vote", "verdict");
    // Without artifacts nobody can tell.
    let bare = export(&engine.store, &bribed.terms().deal_id(), None).unwrap();
    assert_eq!(plain(&bare).unwrap().standing("verdict"), Some(Standing::Attested));
}

#[test]
fn unknown_deals_have_no_file() {
    let (engine, source) = played();
    let fault = export(&engine.store, &DealId::new([9; 32]), Some(&source)).unwrap_err();
    assert!(matches!(fault, ExportFault::UnknownDeal(_)), "{fault}");
}

#[test]
fn a_source_that_lies_is_not_believed() {
    struct Liar;
    impl ArtifactSource for Liar {
        fn fetch(
            &self,
            _: &tribunal_verifiers::Reference,
        ) -> Result<Option<Arc<[u8]>>, tribunal_verifiers::ArtifactFault> {
            Ok(Some(Arc::from(&b"anything"[..])))
        }
    }
    let (engine, _) = played();
    let lied = export(&engine.store, &caught().terms().deal_id(), Some(&Liar)).unwrap();
    let bare = export(&engine.store, &caught().terms().deal_id(), None).unwrap();
    assert_eq!(lied, bare);
}
