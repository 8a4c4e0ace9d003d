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

/// A claim of `pairs` numbers: voters that are to disagree have numbers 2 apart in a line of their own, all others are between
/// them, so under a tolerance of 1 exactly those pairs disagree.
fn graph(voters: usize, disagreeing: &[(usize, usize)]) -> (MemorySource, Vec<Value>) {
    let mut source = MemorySource::new();
    let mut votes = Vec::new();
    for voter in 0..voters {
        let line = |(a, b): &(usize, usize)| match voter {
            _ if voter == *a => "0\n",
            _ if voter == *b => "2\n",
            _ => "1\n",
        };
        let name = format!("v{voter}");
        source.add_file(&name, disagreeing.iter().map(line).collect::<String>().into_bytes());
        votes.push(json!({ "voter": format!("0x{:040x}", voter + 1), "claim": { "stdout": { "artifact": name } } }));
    }
    (source, votes)
}

#[test]
fn the_worst_graphs_of_31_votes_are_counted() {
    // Ten sets of three that disagree inside, and one vote more: 3^10 largest groups.
    let triangles: Vec<(usize, usize)> =
        (0..10).flat_map(|set| [(0, 1), (0, 2), (1, 2)].map(|(a, b)| (set * 3 + a, set * 3 + b))).collect();
    // Fifteen pairs that disagree, and one vote more: 2^15 largest groups.
    let pairs: Vec<(usize, usize)> = (0..15).map(|pair| (pair * 2, pair * 2 + 1)).collect();
    let rules = [
        json!({ "kind": "quorum", "quorum": 3 }),
        json!({ "kind": "boinc", "min_quorum": 5 }),
        json!({ "kind": "credibility", "trust": 3 }),
    ];
    let mut table = String::new();
    for (name, disagreeing) in [("triangles", &triangles), ("pairs", &pairs)] {
        let (source, votes) = graph(31, disagreeing);
        for rule in &rules {
            for heavy in [false, true] {
                let mut votes = votes.clone();
                for (index, vote) in votes.iter_mut().enumerate() {
                    // One group weighs most; as credible as can be, so that products are as long as can be.
                    vote["weight"] = json!(if heavy && index % 3 == 0 { 2 } else { 1 });
                    vote["score"] = json!(if heavy { u64::MAX - index as u64 % 3 * 1000 } else { 0 }.to_string());
                }
                let claim = votes[0]["claim"].clone();
                let request = json!({
                    "method": { "kind": "majority", "votes": votes, "rule": rule },
                    "claim": claim,
                    "comparator": near(),
                });
                let found = line(&verify(&request, &source));
                table += &format!("{name} {rule} heavy {heavy}: {}\n", found.chars().take(100).collect::<String>());
            }
        }
    }
    expect![[r#"
        triangles {"kind":"quorum","quorum":3} heavy false: inconclusive tie: 59049 groups weigh 11 each
        triangles {"kind":"quorum","quorum":3} heavy true: valid ok: 11 of 31 voters agree on the claim
        triangles {"kind":"boinc","min_quorum":5} heavy false: inconclusive tie: 59049 groups weigh 11 each
        triangles {"kind":"boinc","min_quorum":5} heavy true: inconclusive tie: 59049 groups weigh 11 each
        triangles {"kind":"credibility","trust":3} heavy false: inconclusive tie: 59049 groups weigh 2048 each
        triangles {"kind":"credibility","trust":3} heavy true: valid ok: 11 of 31 voters agree on the claim
        pairs {"kind":"quorum","quorum":3} heavy false: inconclusive tie: 32768 groups weigh 16 each
        pairs {"kind":"quorum","quorum":3} heavy true: inconclusive tie: 32 groups weigh 27 each
        pairs {"kind":"boinc","min_quorum":5} heavy false: inconclusive tie: 32768 groups weigh 16 each
        pairs {"kind":"boinc","min_quorum":5} heavy true: inconclusive tie: 32768 groups weigh 16 each
        pairs {"kind":"credibility","trust":3} heavy false: inconclusive tie: 32768 groups weigh 65536 each
        pairs {"kind":"credibility","trust":3} heavy true: valid ok: 16 of 31 voters agree on the claim
    "#]]
    .assert_eq(&table);
}

#[test]
fn votes_that_take_longer_to_compare_than_the_operator_allows_are_no_verdict() {
    let (source, votes) = graph(4, &[(0, 1)]);
    let request = json!({
        "method": { "kind": "majority", "votes": votes, "rule": { "kind": "quorum", "quorum": 1 } },
        "claim": votes[0]["claim"],
        "comparator": near(),
    });
    // Fetching waits for longer than nothing, so the time is over before the first pair.
    struct Slow(MemorySource);
    impl tribunal_verifiers::ArtifactSource for Slow {
        fn fetch(
            &self,
            reference: &tribunal_verifiers::Reference,
        ) -> Result<Option<std::sync::Arc<[u8]>>, tribunal_verifiers::ArtifactFault> {
            let start = std::time::Instant::now();
            while start.elapsed().as_millis() < 2 {
                std::hint::spin_loop();
            }
            self.0.fetch(reference)
        }
    }
    let limits = tribunal_verifiers::OperatorLimits { wall_ms_max: 1, ..Default::default() };
    let service = tribunal_verifiers::Service::new(limits, Vec::new());
    let request = tribunal_verifiers::Request::parse(&request.to_string()).expect("a good request");
    expect!["inconclusive wall-time: comparing the votes takes longer than 1 ms"]
        .assert_eq(&line(&service.verify_from(&request, &Slow(source))));
}

fn in_environment(mut vote: Value, name: &str) -> Value {
    let claim = if vote.get("claim").is_some() { &mut vote["claim"] } else { &mut vote };
    if !name.is_empty() {
        claim["environment"] = json!({ "device": name });
    }
    vote
}

/// Votes of these environments and values, and a claim.
fn ask_in(votes: &[(&str, usize)], judged: (&str, usize), rule: &Value) -> String {
    let votes: Vec<_> = votes
        .iter()
        .enumerate()
        .map(|(voter, (environment, value))| in_environment(vote(voter + 1, *value), environment))
        .collect();
    let request = json!({
        "method": { "kind": "majority", "votes": votes, "rule": rule },
        "claim": in_environment(claim(judged.1), judged.0),
        "comparator": exact(),
    });
    line(&verify(&request, &source())).split("stdout").next().unwrap_or_default().to_owned()
}

#[test]
fn votes_of_the_claims_own_environment_count_first() {
    let quorum = json!({ "kind": "quorum", "quorum": 2 });
    let boinc = json!({ "kind": "boinc", "min_quorum": 3 });
    let mut table = String::new();
    for (votes, judged, rule) in [
        // Its own two are of its mind, whatever four strangers say.
        (&[("a", 1), ("a", 1), ("b", 2), ("b", 2), ("b", 2), ("b", 2)][..], ("a", 1), &quorum),
        (&[("a", 2), ("a", 2), ("b", 1), ("b", 1), ("b", 1), ("b", 1)], ("a", 1), &quorum),
        // Nobody of its own: strangers may confirm it, and convict it not.
        (&[("b", 1), ("b", 1), ("b", 2)], ("a", 1), &quorum),
        (&[("b", 2), ("b", 2), ("b", 1)], ("a", 1), &quorum),
        // One of its own among those that agree on another result.
        (&[("a", 2), ("b", 2), ("b", 1)], ("a", 1), &quorum),
        // One of its own that agrees with it, against strangers.
        (&[("a", 1), ("b", 2), ("b", 2)], ("a", 1), &quorum),
        // Its own tie, then all.
        (&[("a", 1), ("a", 1), ("a", 2), ("a", 2), ("b", 1)], ("a", 1), &quorum),
        // A claim that says nothing is compared with all.
        (&[("a", 2), ("b", 2), ("b", 1)], ("", 1), &quorum),
        (&[("", 2), ("b", 2), ("b", 1)], ("", 1), &quorum),
        // Three came, two of its own are more than half of three.
        (&[("a", 2), ("a", 2), ("b", 1)], ("a", 1), &boinc),
        (&[("a", 2), ("a", 2)], ("a", 1), &boinc),
    ] {
        table += &format!("{votes:?} claim {judged:?}: {}\n", ask_in(votes, judged, rule));
    }
    expect![[r#"
        [("a", 1), ("a", 1), ("b", 2), ("b", 2), ("b", 2), ("b", 2)] claim ("a", 1): valid ok: 2 of 2 voters agree on the claim
        [("a", 2), ("a", 2), ("b", 1), ("b", 1), ("b", 1), ("b", 1)] claim ("a", 1): invalid outvoted: 2 of 2 voters agree on another result: 
        [("b", 1), ("b", 1), ("b", 2)] claim ("a", 1): valid ok: 2 of 3 voters agree on the claim
        [("b", 2), ("b", 2), ("b", 1)] claim ("a", 1): inconclusive other-environment: 2 of 3 voters agree on another result: 
        [("a", 2), ("b", 2), ("b", 1)] claim ("a", 1): invalid outvoted: 2 of 3 voters agree on another result: 
        [("a", 1), ("b", 2), ("b", 2)] claim ("a", 1): inconclusive other-environment: 2 of 3 voters agree on another result: 
        [("a", 1), ("a", 1), ("a", 2), ("a", 2), ("b", 1)] claim ("a", 1): valid ok: 3 of 5 voters agree on the claim
        [("a", 2), ("b", 2), ("b", 1)] claim ("", 1): invalid outvoted: 2 of 3 voters agree on another result: 
        [("", 2), ("b", 2), ("b", 1)] claim ("", 1): invalid outvoted: 2 of 3 voters agree on another result: 
        [("a", 2), ("a", 2), ("b", 1)] claim ("a", 1): invalid outvoted: 2 of 2 voters agree on another result: 
        [("a", 2), ("a", 2)] claim ("a", 1): inconclusive no-quorum: 2 votes came, 3 are needed
    "#]].assert_eq(&table);
}

/// Rows of two numbers: near within 1, far beyond 10; two far rows convict and seven near ones acquit.
fn bands() -> Value {
    json!({
        "kind": "norm", "metric": "linf", "accept": { "absolute": 1 }, "reject": { "absolute": 10 },
        "test": { "alpha": "0.001", "beta": "0.01", "honest_rate": "0.01", "cheat_rate": "0.5" },
    })
}

fn ask_rows(values: &[f64], judged: f64, rule: &Value) -> String {
    let mut source = MemorySource::new();
    let mut claim = |value: f64| {
        let name = format!("{value}.txt");
        source.add_file(&name, format!("{value}\n").repeat(8).into_bytes());
        json!({ "stdout": { "artifact": name } })
    };
    let votes: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(voter, value)| json!({ "voter": format!("0x{:040x}", voter + 1), "claim": claim(*value) }))
        .collect();
    let request = json!({
        "method": { "kind": "majority", "votes": votes, "rule": rule },
        "claim": claim(judged),
        "comparator": bands(),
    });
    let found = line(&verify(&request, &source));
    found.split(": of ").next().unwrap_or_default().chars().take(180).collect()
}

#[test]
fn pairs_between_the_bands_decide_nothing() {
    let quorum = json!({ "kind": "quorum", "quorum": 2 });
    let credibility = json!({ "kind": "credibility", "trust": 2 });
    let mut table = String::new();
    for (values, judged, rule) in [
        // 0 and 5 are open, 0 and 50 differ.
        (&[0.0, 0.5, 0.2][..], 0.1, &quorum),
        (&[0.0, 0.5, 0.2], 50.0, &quorum),
        (&[0.0, 0.5, 0.2], 5.0, &quorum),
        // The three that agree are outweighed by nothing that the two could be.
        (&[0.0, 0.1, 0.2, 50.0, 55.0], 0.1, &quorum),
        (&[0.0, 0.1, 0.2, 50.0, 55.0], 50.0, &quorum),
        // Three that may agree could outweigh the two that do.
        (&[0.0, 0.1, 50.0, 55.0, 60.0], 0.1, &quorum),
        (&[0.0, 0.1, 50.0, 55.0, 60.0], 55.0, &quorum),
        // The open ones are all far from the claim, but two of them and the claim's own are not.
        (&[0.0, 0.1, 50.0, 55.0], 200.0, &quorum),
        (&[0.0, 0.1, 0.2, 50.0, 55.0], 0.1, &credibility),
        (&[0.0, 0.1, 50.0], 0.1, &credibility),
    ] {
        table += &format!("{values:?} claim {judged}: {}\n", ask_rows(values, judged, rule));
    }
    expect![[r#"
        [0.0, 0.5, 0.2] claim 0.1: valid ok: 3 of 3 voters agree on the claim
        [0.0, 0.5, 0.2] claim 50: invalid outvoted: 3 of 3 voters agree on another result
        [0.0, 0.5, 0.2] claim 5: inconclusive between-bands: 3 of 3 voters agree, but the claim is between the bands
        [0.0, 0.1, 0.2, 50.0, 55.0] claim 0.1: valid ok: 3 of 5 voters agree on the claim
        [0.0, 0.1, 0.2, 50.0, 55.0] claim 50: invalid outvoted: 3 of 5 voters agree on another result
        [0.0, 0.1, 50.0, 55.0, 60.0] claim 0.1: inconclusive between-bands: 2 of 5 voters agree, but votes that are between the bands could make a group of equal weight that the claim is not in
        [0.0, 0.1, 50.0, 55.0, 60.0] claim 55: inconclusive between-bands: 2 of 5 voters agree, but votes that are between the bands could make a group of equal weight that the claim is in
        [0.0, 0.1, 50.0, 55.0] claim 200: invalid outvoted: 2 of 4 voters agree on another result
        [0.0, 0.1, 0.2, 50.0, 55.0] claim 0.1: inconclusive between-bands: 3 of 5 voters agree, but votes are between the bands of the comparator, so the credibility of the others is not known
        [0.0, 0.1, 50.0] claim 0.1: valid ok: 2 of 3 voters agree on the claim
    "#]].assert_eq(&table);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_vote_for_the_winner_never_makes_it_lose_within_a_tolerance_and_environments(
        votes in proptest::collection::vec((0usize..3, 0usize..5, 0u64..40), 1..8),
        judged in (0usize..3, 0usize..5),
        added in 0usize..3,
        rule in rules(),
        tolerant in any::<bool>(),
    ) {
        let name = |environment: usize| ["", "a", "b"][environment];
        let mut ballots: Vec<Value> = votes.iter().enumerate().map(|(voter, (environment, value, score))| {
            let mut vote = in_environment(vote(voter + 1, *value), name(*environment));
            vote["score"] = json!(score);
            vote
        }).collect();
        let ask = |votes: &[Value]| {
            let request = json!({
                "method": { "kind": "majority", "votes": votes, "rule": rule },
                "claim": in_environment(claim(judged.1), name(judged.0)),
                "comparator": if tolerant { near() } else { exact() },
            });
            line(&verify(&request, &source()))
        };
        let before = ask(&ballots);
        if before.starts_with("valid") {
            ballots.push(in_environment(vote(99, judged.1), name(added)));
            let after = ask(&ballots);
            prop_assert!(after.starts_with("valid"), "{before}, then {after}");
        }
    }

    #[test]
    fn a_group_that_wins_is_a_largest_set_of_votes_that_agree_pairwise(
        values in proptest::collection::vec(0usize..8, 1..10),
        judged in 0usize..8,
    ) {
        // By trying every set: within 1 of each other, as many as can be.
        let agree = |set: usize| (0..values.len()).all(|a| {
            (0..a).all(|b| set >> a & 1 == 0 || set >> b & 1 == 0 || values[a].abs_diff(values[b]) <= 1)
        });
        let groups: Vec<usize> = (1..1usize << values.len()).filter(|set| agree(*set)).collect();
        let most = groups.iter().map(|set| set.count_ones()).max().expect("a vote");
        let largest: Vec<usize> = groups.into_iter().filter(|set| set.count_ones() == most).collect();
        let found = ask(&all(&values), judged, &json!({ "kind": "quorum", "quorum": 1 }), &near());
        let expected = match largest.as_slice() {
            [set] => {
                let near = (0..values.len()).all(|voter| set >> voter & 1 == 0 || values[voter].abs_diff(judged) <= 1);
                if near { "valid ok" } else { "invalid outvoted" }
            }
            _ => "inconclusive tie",
        };
        prop_assert_eq!(code(&found), expected);
    }
}
