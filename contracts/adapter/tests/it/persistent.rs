use std::path::{Path, PathBuf};

use VerdictKind::{Invalid, Valid};
use alloy_primitives::Keccak256;
use tempfile::TempDir;
use tribunal_contracts::{ChainFault, LineFileFault, Mined, Step};
use tribunal_events::{B256, Outcome, Party, VerdictKind};

use crate::{case::Case, world::World};

fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("below").join("evm.jsonl");
    (folder, path)
}

async fn open(path: &Path) -> World {
    World::persistent(path).await.unwrap()
}

fn steps(case: &Case<'_>) -> [Step; 6] {
    [
        case.open(),
        case.submit(),
        case.dispute(),
        case.reveal(Party::Client),
        case.reveal(Party::Provider),
        case.verdict(0, Outcome::Invalid, &[Invalid, Invalid, Valid]),
    ]
}

/// A deal from beginning to end in one process that keeps nothing.
async fn in_one_go() -> Vec<Mined> {
    let world = World::in_process().await;
    let case = Case::funded(&world, 60, true).await;
    let mut mined = Vec::new();
    for step in steps(&case) {
        mined.push(case.must(&step).await);
    }
    mined
}

/// The same deal in a file, with another process for every step.
async fn in_a_file(path: &Path) -> Vec<Mined> {
    let all = {
        let world = open(path).await;
        steps(&Case::funded(&world, 60, true).await)
    };
    let mut mined = Vec::new();
    for step in all {
        mined.push(open(path).await.chain().perform(&step).await.unwrap());
    }
    mined
}

#[tokio::test]
async fn a_deal_goes_on_where_the_last_process_left_it() {
    let (_folder, path) = place();
    let mined = in_a_file(&path).await;
    assert_eq!(mined, in_one_go().await, "restarts change nothing");
    let world = open(&path).await;
    let case = Case::of(&world, 60, true);
    for (step, mined) in steps(&case).iter().zip(mined) {
        assert_eq!(case.must(step).await, mined, "taken once");
    }
    case.expect(Outcome::Invalid, 3).await;
}

#[tokio::test]
async fn time_goes_on_from_the_last_transaction() {
    let (_folder, path) = place();
    {
        let world = open(&path).await;
        world.wait(500).await;
        Case::funded(&world, 60, true).await;
    }
    let World::InProcess(chain) = open(&path).await else { unreachable!() };
    assert_eq!(chain.time_s(), crate::world::START_S + 500);
}

#[tokio::test]
async fn what_a_contract_refuses_is_not_kept() {
    let (_folder, path) = place();
    let text = {
        let world = open(&path).await;
        let case = Case::funded(&world, 60, true).await;
        let text = std::fs::read_to_string(&path).unwrap();
        case.perform(&case.submit()).await.unwrap_err();
        text
    };
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    let world = open(&path).await;
    let case = Case::of(&world, 60, true);
    assert_eq!(case.must(&case.open()).await, in_one_go().await[0], "and changes nothing that comes after");
}

#[tokio::test]
async fn a_cut_off_line_was_never_reported_and_is_taken_anew() {
    let (_folder, path) = place();
    let mined = in_a_file(&path).await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 3]).unwrap();
    let world = open(&path).await;
    let case = Case::of(&world, 60, true);
    let last = steps(&case).into_iter().next_back().unwrap();
    let view = world.chain().case(case.terms.hash()).await.unwrap();
    assert_eq!(view.outcome, None, "the verdict is gone");
    assert_eq!(case.must(&last).await, mined[5]);
    drop(world);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn one_process_at_a_time_holds_a_file() {
    let (_folder, path) = place();
    let _first = open(&path).await;
    let fault = World::persistent(&path).await.err().expect("held");
    assert!(matches!(fault, ChainFault::Journal(LineFileFault::InUse(_))), "{fault:?}");
}

/// Lines with their links made again, as somebody would who changes them on purpose.
fn linked(lines: &[String]) -> String {
    let mut last = B256::ZERO;
    let mut text = format!("{}\n", lines[0]);
    for line in &lines[1..] {
        let (entry, _) = line.strip_prefix(r#"{"entry":"#).unwrap().rsplit_once(r#","link":"#).unwrap();
        let mut hasher = Keccak256::new();
        hasher.update(last);
        hasher.update(entry);
        last = hasher.finalize();
        text += &format!("{{\"entry\":{entry},\"link\":\"{last}\"}}\n");
    }
    text
}

#[tokio::test]
async fn damage_is_named_by_its_line() {
    let (_folder, path) = place();
    in_a_file(&path).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(linked(&lines), text, "the test knows the links");
    let damaged = async |text: String| {
        std::fs::write(&path, text).unwrap();
        let fault = World::persistent(&path).await.err().expect("damaged");
        let ChainFault::Journal(LineFileFault::Damaged { line, problem, .. }) = fault else { panic!("{fault:?}") };
        (line, problem)
    };
    let changed = |index: usize, from: &str, to: &str| {
        let mut lines = lines.clone();
        assert!(lines[index].contains(from));
        lines[index] = lines[index].replacen(from, to, 1);
        lines
    };
    // A deposit of 10000 (0x2710) that becomes 10001.
    let (line, problem) = damaged(changed(1, "2710", "2711").join("\n") + "\n").await;
    assert!(line == 2 && problem.contains("link"), "{line}: {problem}");
    let (line, problem) = damaged(linked(&changed(1, "2710", "2711"))).await;
    assert!(line == 2 && problem.contains("was expected"), "{line}: {problem}");
    // Another outcome than the transaction has: as if the contracts did something else now.
    let last = lines.len() - 1;
    let mut other_outcome = lines.clone();
    let (before, after) = other_outcome[last].split_once(r#""outcome":"0x"#).unwrap();
    other_outcome[last] = format!(r#"{before}"outcome":"0x{}{}"#, "0".repeat(64), &after[64..]);
    let (line, problem) = damaged(linked(&other_outcome)).await;
    assert!(line == last + 1, "{line}: {problem}");
    // The dispute is missing, so a seed cannot be revealed.
    let mut without = lines.clone();
    without.remove(lines.len() - 4);
    let (line, problem) = damaged(linked(&without)).await;
    assert!(line == lines.len() - 3 && problem.contains("cannot be taken again"), "{line}: {problem}");
    // The file of other contracts.
    std::fs::write(&path, linked(&changed(0, "\"contracts\":\"0x", "\"contracts\":\"0x77"))).unwrap();
    let fault = World::persistent(&path).await.err().expect("foreign");
    assert!(matches!(fault, ChainFault::Journal(LineFileFault::Foreign { .. })), "{fault:?}");
    std::fs::write(&path, text).unwrap();
    open(&path).await;
}
