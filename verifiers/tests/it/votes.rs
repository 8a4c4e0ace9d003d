//! Votes: what wins, and what order and new votes may not change.

use std::fmt::Write as _;

use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Value, json};
use tribunal_verifiers::MemorySource;

use crate::bench::{line, verify};

fn source() -> MemorySource {
    let mut source = MemorySource::new();
    for number in 0..40 {
        // a.0, a.1, … are near their neighbours, not near their neighbours' neighbours.
        source.add_file(&format!("{number}"), format!("{number}\n").into_bytes());
    }
    source
}

/// A vote of voter `voter` for the number `value`.
fn vote(voter: usize, value: usize) -> Value {
    json!({ "voter": format!("0x{voter:040x}"), "claim": claim(value) })
}

fn claim(value: usize) -> Value {
    json!({ "stdout": { "artifact": value.to_string() } })
}

fn ask(votes: &[Value], judged: usize, rule: &Value, comparator: &Value) -> String {
    let request = json!({
        "method": { "kind": "majority", "votes": votes, "rule": rule },
        "claim": claim(judged),
        "comparator": comparator,
    });
    line(&verify(&request, &source()))
}

fn exact() -> Value {
    json!({ "kind": "exact" })
}

fn near() -> Value {
    json!({ "kind": "numeric", "absolute": 1 })
}

fn all(values: &[usize]) -> Vec<Value> {
    values.iter().enumerate().map(|(voter, value)| vote(voter + 1, *value)).collect()
}

fn code(line: &str) -> &str {
    line.split(':').next().unwrap_or_default()
}

#[test]
fn a_quorum_of_weights_wins() {
    let quorum = |quorum: u64| json!({ "kind": "quorum", "quorum": quorum });
    let mut table = String::new();
    for (values, judged, needed) in [
        (&[1, 1, 1][..], 1, 2),
        (&[1, 1, 2], 1, 2),
        (&[1, 1, 2], 2, 2),
        (&[1, 1, 2], 3, 2),
        (&[1, 1, 2, 2], 1, 2),
        (&[1, 2, 3], 1, 2),
        (&[1, 1, 1, 1, 2], 1, 5),
        (&[], 1, 1),
    ] {
        let found = ask(&all(values), judged, &quorum(needed), &exact());
        writeln!(table, "{values:?} claim {judged} quorum {needed}: {found}").expect("a string");
    }
    let mut heavy = all(&[1, 2, 2]);
    heavy[0]["weight"] = json!(5);
    writeln!(table, "weight 5 against 2: {}", ask(&heavy, 1, &quorum(3), &exact())).expect("a string");
    expect![[r#"
        [1, 1, 1] claim 1 quorum 2: valid ok: 3 of 3 voters agree on the claim
        [1, 1, 2] claim 1 quorum 2: valid ok: 2 of 3 voters agree on the claim
        [1, 1, 2] claim 2 quorum 2: invalid outvoted: 2 of 3 voters agree on another result: stdout: expected blake3:50cc1102b1c612e6962547aacdcef9a400d4416ef8dd9388e885991853c400c9, claimed blake3:b9a1a3183dd350f0e896d0f4b59c87e7bda8b1ed3a1af76afc86c1cb8f7cbbde
        [1, 1, 2] claim 3 quorum 2: invalid outvoted: 2 of 3 voters agree on another result: stdout: expected blake3:50cc1102b1c612e6962547aacdcef9a400d4416ef8dd9388e885991853c400c9, claimed blake3:49124bf4f7f37328738ac34216a60dcd5f58bb198c5c3f6719b6becafb7e7882
        [1, 1, 2, 2] claim 1 quorum 2: inconclusive tie: 2 groups weigh 2 each
        [1, 2, 3] claim 1 quorum 2: inconclusive no-quorum: the largest group weighs 1, 2 is needed
        [1, 1, 1, 1, 2] claim 1 quorum 5: inconclusive no-quorum: the largest group weighs 4, 5 is needed
        [] claim 1 quorum 1: inconclusive no-quorum: nobody voted
        weight 5 against 2: valid ok: 1 of 3 voters agree on the claim
    "#]].assert_eq(&table);
}

#[test]
fn boinc_needs_enough_votes_and_more_than_half_of_the_quorum() {
    let mut table = String::new();
    for (values, quorum) in [
        (&[1, 1][..], 2),
        (&[1], 2),
        (&[1, 2], 2),
        (&[1, 1, 2], 3),
        (&[1, 1, 2], 4),
        (&[1, 1, 2, 2, 1], 5),
        (&[1, 1, 2, 3], 4),
    ] {
        let rule = json!({ "kind": "boinc", "min_quorum": quorum });
        writeln!(table, "{values:?} min_quorum {quorum}: {}", ask(&all(values), 1, &rule, &exact())).expect("a string");
    }
    expect![[r#"
        [1, 1] min_quorum 2: valid ok: 2 of 2 voters agree on the claim
        [1] min_quorum 2: inconclusive no-quorum: 1 votes came, 2 are needed
        [1, 2] min_quorum 2: inconclusive no-quorum: the largest group weighs 1, 2 is needed
        [1, 1, 2] min_quorum 3: valid ok: 2 of 3 voters agree on the claim
        [1, 1, 2] min_quorum 4: inconclusive no-quorum: 3 votes came, 4 are needed
        [1, 1, 2, 2, 1] min_quorum 5: valid ok: 3 of 5 voters agree on the claim
        [1, 1, 2, 3] min_quorum 4: inconclusive no-quorum: the largest group weighs 2, 3 is needed
    "#]]
    .assert_eq(&table);
}

/// Voters of one score who must agree before trust is reached, with as many dissenters before them.
fn voters_needed(trust: u64, score: u64, dissenters: usize) -> usize {
    let rule = json!({ "kind": "credibility", "trust": trust });
    let found = (1..20).find(|count| {
        let mut votes = all(&[vec![2; dissenters], vec![1; *count]].concat());
        votes.iter_mut().for_each(|vote| vote["score"] = json!(score));
        ask(&votes, 1, &rule, &exact()).starts_with("valid")
    });
    found.expect("enough voters")
}

#[test]
fn credibility_gives_iexecs_table() {
    let mut table = String::new();
    for trust in [1, 2, 3, 5, 10, 20, 100] {
        let total = voters_needed(trust, 0, 1) + 1;
        let (zero, thirty) = (voters_needed(trust, 0, 0), voters_needed(trust, 30, 0));
        writeln!(table, "trust {trust}: {zero} of score 0, {total} votes after a dissenter, {thirty} of score 30")
            .expect("a string");
    }
    expect![[r#"
        trust 1: 1 of score 0, 3 votes after a dissenter, 1 of score 30
        trust 2: 1 of score 0, 3 votes after a dissenter, 1 of score 30
        trust 3: 2 of score 0, 4 votes after a dissenter, 1 of score 30
        trust 5: 3 of score 0, 5 votes after a dissenter, 1 of score 30
        trust 10: 4 of score 0, 6 votes after a dissenter, 2 of score 30
        trust 20: 5 of score 0, 7 votes after a dissenter, 2 of score 30
        trust 100: 7 of score 0, 10 votes after a dissenter, 3 of score 30
    "#]]
    .assert_eq(&table);
}

#[test]
fn agreement_within_a_tolerance_makes_cliques() {
    let quorum = json!({ "kind": "quorum", "quorum": 2 });
    let mut table = String::new();
    for (values, judged) in [
        (&[1, 2, 3][..], 2),
        (&[1, 2, 2, 3, 3], 2),
        (&[1, 1, 2, 3], 1),
        (&[1, 2, 2, 3, 5], 2),
        (&[1, 1, 2, 5], 3),
        (&[1, 1, 2, 5], 1),
    ] {
        writeln!(table, "{values:?} claim {judged}: {}", ask(&all(values), judged, &quorum, &near()))
            .expect("a string");
    }
    expect![[r#"
        [1, 2, 3] claim 2: inconclusive tie: 2 groups weigh 2 each
        [1, 2, 2, 3, 3] claim 2: valid ok: 4 of 5 voters agree on the claim
        [1, 1, 2, 3] claim 1: valid ok: 3 of 4 voters agree on the claim
        [1, 2, 2, 3, 5] claim 2: inconclusive tie: 2 groups weigh 3 each
        [1, 1, 2, 5] claim 3: invalid outvoted: 3 of 4 voters agree on another result: stdout: line 1: expected 1, claimed 3
        [1, 1, 2, 5] claim 1: valid ok: 3 of 4 voters agree on the claim
    "#]].assert_eq(&table);
}

#[test]
fn a_field_that_only_one_claims_is_a_difference() {
    let quorum = json!({ "kind": "quorum", "quorum": 1 });
    let mut other = vote(1, 1);
    other["claim"]["exit_code"] = json!(0);
    expect!["invalid outvoted: 1 of 1 voters agree on another result: exit code: expected 0, claimed none"]
        .assert_eq(&ask(&[other], 1, &quorum, &exact()));
    let mut silent = vote(1, 1);
    silent["claim"] = json!({});
    expect!["invalid outvoted: 1 of 1 voters agree on another result: stdout: only one of the two claims it"]
        .assert_eq(&ask(&[silent], 1, &quorum, &exact()));
}

#[test]
fn many_votes_that_all_differ_end_soon() {
    let values: Vec<usize> = (0..31).collect();
    let quorum = json!({ "kind": "quorum", "quorum": 31 });
    assert_eq!(code(&ask(&all(&values), 1, &quorum, &near())), "inconclusive no-quorum");
    // Three in each of ten groups that do not agree inside: the most cliques that there can be.
    let spread = json!({ "kind": "numeric", "relative": 0.5 });
    assert!(ask(&all(&values), 1, &quorum, &spread).starts_with("inconclusive"));
}

fn rules() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1u64..6).prop_map(|quorum| json!({ "kind": "quorum", "quorum": quorum })),
        (1u64..6).prop_map(|quorum| json!({ "kind": "boinc", "min_quorum": quorum })),
        (1u64..50).prop_map(|trust| json!({ "kind": "credibility", "trust": trust })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_of_votes_changes_nothing(
        votes in proptest::collection::vec((0usize..6, 0u64..40), 0..9).prop_map(|votes| {
            votes.into_iter().enumerate().map(|(voter, (value, score))| {
                let mut vote = vote(voter + 1, value);
                vote["score"] = json!(score);
                vote["weight"] = json!(score % 3 + 1);
                vote
            }).collect::<Vec<_>>()
        }),
        seed in any::<u64>(),
        rule in rules(),
        tolerant in any::<bool>(),
        judged in 0usize..6,
    ) {
        let comparator = if tolerant { near() } else { exact() };
        let mut shuffled = votes.clone();
        let mut state = seed;
        for index in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            shuffled.swap(index, (state >> 33) as usize % (index + 1));
        }
        prop_assert_eq!(ask(&votes, judged, &rule, &comparator), ask(&shuffled, judged, &rule, &comparator));
    }

    #[test]
    fn a_vote_for_the_winner_never_makes_it_lose(values in proptest::collection::vec(0usize..4, 1..8), rule in rules()) {
        for judged in 0..4 {
            let mut votes = all(&values);
            if ask(&votes, judged, &rule, &exact()).starts_with("valid") {
                votes.push(vote(99, judged));
                prop_assert!(ask(&votes, judged, &rule, &exact()).starts_with("valid"));
            }
        }
    }
}
