//! An independent mediator follows somebody else's record, and a watcher checks it.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use tribunal_core::Deal;
use tribunal_engine::{
    config::{Config, FollowConfig, MediatorConfig},
    follow::{FollowFault, Followed, Follower},
    mediator::{Mediator, history::History},
    replay::load,
    store::Store,
    watch::Watcher,
};
use tribunal_events::{DealId, Outcome, Party, VerdictKind};
use tribunal_fixtures::{Script, TermsBuilder, jobs, keys::key};
use tribunal_verifiers::{ArtifactSource, FolderSource, OperatorLimits, Service};

use crate::http::World;

fn terms(name: &str) -> TermsBuilder {
    TermsBuilder::new(name).without_contract().agree_by_s(4_000_000_000)
}

fn source() -> Arc<dyn ArtifactSource> {
    Arc::new(FolderSource::open(&jobs::folder().join("wordcount")).unwrap())
}

fn service() -> Arc<Service> {
    Arc::new(Service::new(OperatorLimits::default(), vec![source()]))
}

/// Machines of others: a key each, all following the operator's engine in `world`.
async fn following(world: &World, names: &[&str], folder: &Path) -> Vec<(Followed, Arc<History>)> {
    following_as(world, "operator", names, folder).await
}

/// The same, taking it for the engine of `operator`.
async fn following_as(world: &World, operator: &str, names: &[&str], folder: &Path) -> Vec<(Followed, Arc<History>)> {
    let mut machines = Vec::new();
    for name in names {
        let folder = folder.join(name);
        let follow = FollowConfig { url: world.url(""), operator: key(operator).address(), token: None };
        let history = Arc::new(History::open(folder.join("h.jsonl")).unwrap());
        let config = MediatorConfig { follow: vec![follow.clone()], watch: true, ..MediatorConfig::default() };
        let watcher = Arc::new(Watcher::new(&Config::default(), service(), source()));
        let mediators = |follower: &Follower| {
            let (store, history) = (follower.store().clone(), Arc::clone(&history));
            Ok(vec![Mediator::new(Arc::new(key(name)), store, history, service(), source())?])
        };
        // A desk of its own to share workers and counts with.
        let own = world.engine.desk().unwrap();
        let followed =
            Followed::start(&config, &folder.join("followed"), own, key("m7").address(), &history, mediators, &watcher);
        let followed = followed.unwrap();
        machines.push((followed, history));
    }
    machines
}

async fn settled(world: &World, id: DealId) -> Deal {
    tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Some(deal) = load(world.engine.store(), &id).unwrap()
                && deal.is_settled()
            {
                return deal;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("the deal is settled")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panel_of_three_machines_judges_one_record() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    // m1 runs beside the operator's engine, m2 and m3 on machines of their own.
    let machines = following(&world, &["m2", "m3"], folder.path()).await;
    for (number, cheats) in [(1, false), (2, true)] {
        let script =
            Script::new(terms(&format!("three machines {number}")).drawn(&["m1", "m2", "m3"], 3, 2, 0).build());
        let job = jobs::load("wordcount").unwrap();
        let path = job.expected[0].0.clone();
        let job = if cheats { job.with_result(&path, b"{}".to_vec()) } else { job };
        let said = [
            script.proposed(Party::Client),
            script.agreed(Party::Provider),
            script.result_submitted(job.claim(1000)),
            script.disputed("show me"),
            script.seed_revealed(Party::Client),
            script.seed_revealed(Party::Provider),
        ];
        world.record(&said).await;
        let deal = settled(&world, script.terms().deal_id()).await;
        assert_eq!(deal.outcome(), Some(if cheats { Outcome::Invalid } else { Outcome::Valid }));
        let tribunal_core::Phase::Settled { decision, .. } = deal.phase() else { unreachable!() };
        assert_eq!(decision.round.as_ref().unwrap().voters().len(), 3, "all three voted");
    }
    for (followed, history) in machines {
        assert_eq!(history.len(), 2);
        // The end of the cases reaches the copies a moment later.
        tokio::time::timeout(Duration::from_secs(30), async {
            while !followed.desks()[0].cases().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("nothing is asked any more");
        followed.shutdown(Duration::from_secs(10)).await;
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deals_of_another_operator_are_not_a_followed_engines_to_tell_about() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    // The same record, but followed as that of somebody else.
    let machines = following_as(&world, "m6", &["m2"], folder.path()).await;
    let script = Script::new(terms("a foreign record").appointed("m2", 0).build());
    let said = [
        script.proposed(Party::Client),
        script.agreed(Party::Provider),
        script.result_submitted(jobs::load("wordcount").unwrap().claim(1000)),
        script.disputed("show me"),
    ];
    world.record(&said).await;
    let copied = std::fs::read_dir(folder.path().join("m2/followed")).unwrap().next().unwrap().unwrap().path();
    let end = world.engine.store().last_position();
    tokio::time::timeout(Duration::from_secs(30), async {
        while Store::open_read_only(&copied).map_or(0, |copy| copy.last_position()) < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the record is copied");
    for (followed, history) in machines {
        followed.shutdown(Duration::from_secs(10)).await;
        assert!(history.is_empty(), "nothing is signed on the word of a stranger");
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_told_otherwise_than_before_is_not_followed_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let record = |world: World, name: &'static str| async move {
        let script = Script::new(terms(name).build());
        world.record(&[script.proposed(Party::Client), script.agreed(Party::Provider)]).await;
        world
    };
    let first = record(World::new().await, "the first history").await;
    let mut follower = Follower::open(&first.url(""), None, folder.path()).unwrap();
    let mut heard = 0;
    follower
        .read(|_| {
            heard += 1;
            heard < 2
        })
        .await
        .unwrap();
    assert_eq!(follower.store().last_position(), 2);
    drop(follower);
    first.close().await;
    // The same operator with another past, longer than the copy.
    let second = record(World::new().await, "another").await;
    let second = record(second, "history").await;
    let mut follower = Follower::open(&second.url(""), None, folder.path()).unwrap();
    let fault = follower.read(|_| panic!("nothing of another past is taken")).await.unwrap_err();
    assert!(matches!(&fault, FollowFault::Rewritten { position: 2, .. }), "{fault}");
    assert!(!fault.retry_helps());
    assert_eq!(follower.store().last_position(), 2, "the copy is evidence");
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_alarms_on_a_false_verdict_and_not_on_a_true_one() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let claim = jobs::load("wordcount").unwrap().claim(1000);
    let mut ids = Vec::new();
    for (name, verdict, code) in
        [("a true verdict", VerdictKind::Valid, "ok"), ("a false verdict", VerdictKind::Invalid, "output-differs")]
    {
        // m7 runs nowhere: its words are ours.
        let script = Script::new(terms(name).appointed("m7", 0).build());
        let vote = script.vote(&key("m7"), 0, verdict, 1000, code);
        let said = [
            script.proposed(Party::Client),
            script.agreed(Party::Provider),
            script.result_submitted(claim.clone()),
            script.disputed("show me"),
            script.verdict_given(&key("m7"), &vote),
        ];
        world.record(&said).await;
        settled(&world, script.terms().deal_id()).await;
        ids.push(script.terms().deal_id());
    }
    let output = Command::new(env!("CARGO_BIN_EXE_tribunal"))
        .args(["mediator", "watch", "--once", "--follow", &world.url(""), "--artifacts"])
        .arg(jobs::folder().join("wordcount"))
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text.contains("2 cases checked, 1 alarms"), "{text}");
    assert!(text.contains(&format!("ALARM divergence: deal {}", ids[1])), "{text}");
    assert!(!text.contains(&ids[0].to_string()), "{text}");
    // The copy is a store like any other.
    let copy = std::fs::read_dir(folder.path().join("tribunal-watched")).unwrap().next().unwrap().unwrap().path();
    let output = Command::new(env!("CARGO_BIN_EXE_tribunal"))
        .args(["mediator", "watch", "--json", "--store"])
        .arg(copy)
        .arg("--artifacts")
        .arg(jobs::folder().join("wordcount"))
        .output()
        .unwrap();
    let alarm: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((alarm["code"].as_str(), alarm["deal_id"].as_str()), (Some("divergence"), Some(&*ids[1].to_string())));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_or_no_engine_is_a_fault_that_passes() {
    let folder = tempfile::tempdir().unwrap();
    let follower = Follower::open("http://127.0.0.1:1", None, folder.path()).unwrap();
    let fault = follower.end().await.unwrap_err();
    assert!(fault.retry_helps() && fault.to_string().contains("127.0.0.1:1"), "{fault}");
}
