use std::sync::Arc;

use tribunal_events::proto;
use tribunal_fixtures::{START_S, TermsBuilder, keys};

use super::*;

const PANEL: [&str; 5] = ["m1", "m2", "m3", "m4", "m5"];

fn preflight() -> Preflight {
    Preflight {
        policy: PolicyConfig::default(),
        limits: OperatorLimits::default(),
        mediators: vec![keys::address("m1")],
    }
}

/// With one setting changed.
fn with(change: impl FnOnce(&mut PolicyConfig)) -> Preflight {
    let mut preflight = preflight();
    change(&mut preflight.policy);
    preflight
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_s(START_S + second)
}

fn deal() -> TermsBuilder {
    TermsBuilder::new("preflight")
}

/// Level and sentence of one rule.
fn says(preflight: &Preflight, terms: &TermsBuilder, code: &str) -> (Level, String) {
    let terms: Arc<Terms> = terms.build();
    let findings = preflight.check(&terms, at(0));
    let found = findings.iter().find(|finding| finding.code == code);
    found.map(|finding| (finding.level, finding.sentence.clone())).unwrap_or_else(|| panic!("{code}: {findings:#?}"))
}

#[track_caller]
fn check(preflight: &Preflight, terms: &TermsBuilder, code: &str, level: Level, figures: &[&str]) {
    let (found, sentence) = says(preflight, terms, code);
    assert_eq!(found, level, "{code}: {sentence}");
    for figure in figures {
        assert!(sentence.contains(figure), "{figure:?} is not in {sentence:?}");
    }
}

fn timeouts(change: impl FnOnce(&mut proto::Timeouts)) -> TermsBuilder {
    deal().edit(|terms| change(terms.timeouts.as_mut().unwrap()))
}

fn limits(change: impl FnOnce(&mut proto::Limits)) -> TermsBuilder {
    deal().edit(|terms| change(terms.job.as_mut().unwrap().limits.as_mut().unwrap()))
}

/// Price and results collateral.
fn money(price: u64, collateral: u64) -> TermsBuilder {
    deal().fixed(price).edit(|terms| {
        let pricing = terms.pricing.as_mut().unwrap();
        pricing.payment_collateral = price.to_string();
        pricing.results_collateral = collateral.to_string();
    })
}

#[test]
fn good_terms_pass_and_every_rule_says_one_sentence() {
    for terms in [deal(), deal().drawn(&PANEL, 3, 2, 0), deal().majority(), deal().without_contract()] {
        let terms = terms.build();
        let findings = preflight().check(&terms, at(0));
        for finding in &findings {
            assert_ne!(finding.level, Level::Refuse, "{finding:?}");
            assert!(finding.sentence.ends_with('.') && !finding.sentence.contains('\n'), "{finding:?}");
        }
        assert_eq!(preflight().refusal(&terms, at(0)), None);
    }
}

#[test]
fn a_deal_that_names_nobody_here_is_not_refused_here() {
    let terms = money(1000, 0).edit(|terms| {
        terms.mediation.as_mut().unwrap().mediators = vec![keys::address("m2").to_vec()];
        terms.timeouts.as_mut().unwrap().mediate_s = 1;
    });
    assert_eq!(preflight().refusal(&terms.build(), at(0)), None);
    check(&preflight(), &terms, "named", Level::Note, &["do not name"]);
    let named = timeouts(|it| it.mediate_s = 1).build();
    assert!(preflight().refusal(&named, at(0)).unwrap().contains("mediate is 1 s"));
}

#[test]
fn the_time_to_agree_must_be_ahead() {
    let terms = deal().build();
    let agree_by = |second| preflight().check(&terms, at(second))[0].clone();
    assert_eq!(agree_by(0).level, Level::Ok);
    assert!(agree_by(0).sentence.contains("300 s left"), "{}", agree_by(0).sentence);
    assert_eq!(agree_by(286).level, Level::Ok);
    assert_eq!(agree_by(287).level, Level::Refuse, "13 s are less than a block and the bus take");
    assert_eq!(agree_by(320).level, Level::Refuse);
    assert!(agree_by(320).sentence.contains("20 s ago"), "{}", agree_by(320).sentence);
}

#[test]
fn windows_are_longer_than_a_block_and_the_bus() {
    let code = "windows";
    check(&preflight(), &timeouts(|it| it.submit_s = 13), code, Level::Refuse, &["submit is 13 s", "14 s"]);
    check(&preflight(), &timeouts(|it| it.judge_s = 1), code, Level::Refuse, &["judge is 1 s"]);
    check(&preflight(), &timeouts(|it| it.availability_s = 5), code, Level::Refuse, &["serve an artifact is 5 s"]);
    check(&preflight(), &timeouts(|it| it.submit_s = 14), code, Level::Ok, &["14 s"]);
    let fast = with(|policy| (policy.block_time_s, policy.bus_latency_s) = (1, 1));
    check(&fast, &timeouts(|it| it.submit_s = 2), code, Level::Ok, &["2 s"]);
    // Without a contract nobody waits for blocks.
    let terms = timeouts(|it| it.submit_s = 2).without_contract();
    check(&preflight(), &terms, code, Level::Ok, &["2 s"]);
}

#[test]
fn a_panel_can_use_its_draw_commit_and_reveal_windows() {
    let drawn = |mediate_s, draw_s| {
        deal().drawn(&PANEL, 3, 2, 0).edit(move |terms| {
            let it = terms.timeouts.as_mut().unwrap();
            (it.mediate_s, it.draw_s) = (mediate_s, draw_s);
        })
    };
    check(&preflight(), &drawn(240, 120), "commit-window", Level::Ok, &["120 s to judge and commit"]);
    check(&preflight(), &drawn(28, 120), "commit-window", Level::Refuse, &["14 s to judge"]);
    check(&preflight(), &drawn(240, 13), "draw-window", Level::Refuse, &["13 s", "14 s"]);
    check(&preflight(), &drawn(240, 14), "draw-window", Level::Ok, &[]);
}

#[test]
fn redraws_that_ask_somebody_again_are_noted() {
    check(&preflight(), &deal(), "redraws", Level::Ok, &["once"]);
    check(&preflight(), &deal().appointed("m1", 2), "redraws", Level::Note, &["3 times"]);
    check(&preflight(), &deal().drawn(&PANEL, 1, 1, 3), "redraws", Level::Ok, &["4 panels of 1", "5 mediators"]);
    check(&preflight(), &deal().drawn(&PANEL, 3, 2, 1), "redraws", Level::Note, &["2 panels of 3"]);
}

#[test]
fn the_worst_case_of_the_job_fits_the_time_to_judge() {
    // 240 s less a quarter less 14 s for the chain and the bus.
    let slow = with(|policy| policy.fuel_per_s = 1_000_000);
    let job = |fuel, wall_ms| limits(|it| (it.fuel, it.wall_ms) = (fuel, wall_ms));
    check(&slow, &job(166_000_000, 166_000), "judge-time", Level::Ok, &["at most 166 s", "240 s", "166 s are left"]);
    check(&slow, &job(166_000_001, 166_100), "judge-time", Level::Refuse, &["166.1 s", "166 s are left"]);
    check(&slow, &job(1_000_000, 200_000), "judge-time", Level::Note, &["lasts 1 s", "200 s"]);
    check(&slow, &job(100_000_000, 10_000), "judge-time", Level::Note, &["lasts 100 s", "10 s"]);
    // A panel commits in the first half.
    let half = job(100_000_000, 100_000).drawn(&PANEL, 3, 2, 0);
    check(&slow, &half, "judge-time", Level::Refuse, &["of 120 s", "76 s are left"]);
    // A proof is checked without running anything.
    check(&slow, &job(u64::MAX, u64::MAX).majority(), "judge-time", Level::Ok, &[]);
}

#[test]
fn the_worked_examples_of_deterrence_come_out() {
    let colluding = |check_ppm: u64| {
        with(|policy| {
            policy.detection = Some(Share::from_ppm(950_000));
            policy.colluding = Share::from_ppm(200_000);
            policy.check_probability = Share::from_ppm(check_ppm);
        })
    };
    // R = C = 1, S = 10, d = 0.95, r = 0.2: p ≥ 12 %; S = 100: 1.3 %.
    check(&colluding(120_000), &money(1, 10), "check-probability", Level::Ok, &["11.9618 %", "12 %"]);
    check(&colluding(119_618), &money(1, 10), "check-probability", Level::Ok, &[]);
    check(&colluding(119_617), &money(1, 10), "check-probability", Level::Refuse, &["11.9618 %", "11.9617 %"]);
    check(&colluding(13_028), &money(1, 100), "check-probability", Level::Ok, &["1.3028 %"]);
    check(&colluding(13_027), &money(1, 100), "check-probability", Level::Refuse, &[]);
}

#[test]
fn collateral_that_no_checking_makes_up_for_is_refused() {
    // Exact re-execution finds every cheat: losing the price alone is just enough.
    check(&preflight(), &money(1000, 0), "collateral", Level::Ok, &["100 %"]);
    let blind = with(|policy| policy.detection = Some(Share::from_ppm(950_000)));
    check(&blind, &money(1000, 0), "collateral", Level::Refuse, &["at least 53 is needed"]);
    check(&blind, &money(1000, 52), "collateral", Level::Refuse, &[]);
    check(&blind, &money(1000, 53), "collateral", Level::Ok, &[]);
    // A tolerance hides some cheats by default.
    let tolerant = |terms: TermsBuilder| {
        let numeric = proto::NumericComparator { relative: "0.01".into(), ..Default::default() };
        terms.comparator(proto::comparator::Kind::Numeric(numeric))
    };
    check(&preflight(), &tolerant(money(1000, 52)), "collateral", Level::Refuse, &["detection 0.95"]);
    check(&preflight(), &tolerant(money(1000, 53)), "collateral", Level::Ok, &[]);
    // An outside gain, and nobody left who is honest.
    let tempted = with(|policy| policy.gain = Share::from_ppm(5_000_000));
    check(&tempted, &money(1000, 3999), "collateral", Level::Refuse, &["at least 4000"]);
    check(&tempted, &money(1000, 4000), "collateral", Level::Ok, &["100 %"]);
    let hopeless = with(|policy| policy.colluding = Share::ONE);
    check(&hopeless, &money(1000, u64::MAX), "collateral", Level::Refuse, &["whatever the collateral"]);
    check(&hopeless, &money(0, 0), "collateral", Level::Ok, &["gains nothing"]);
    // Of a metered price the most counts.
    let metered = deal().metered(1, 1000).edit(|terms| {
        terms.pricing.as_mut().unwrap().results_collateral = "52".into();
    });
    check(&blind, &metered, "collateral", Level::Refuse, &["price 1000", "at least 53"]);
}

#[test]
fn amounts_of_192_bits_are_weighed_exactly() {
    let most = "6277101735386680763835789423207666416102355444464034512895";
    let terms = deal().edit(|terms| {
        let pricing = terms.pricing.as_mut().unwrap();
        pricing.kind = Some(proto::pricing::Kind::Fixed(proto::FixedPrice { price: most.into() }));
        pricing.payment_collateral = most.into();
        pricing.results_collateral = most.into();
    });
    let policy = |gain_ppm| with(|policy| policy.gain = Share::from_ppm(gain_ppm));
    check(&policy(2_000_000), &terms, "collateral", Level::Ok, &["100 %"]);
    check(&policy(2_000_001), &terms, "collateral", Level::Refuse, &[]);
    check(&policy(MILLION * MILLION), &terms, "collateral", Level::Refuse, &[]);
}

#[test]
fn what_this_operator_could_only_call_inconclusive_is_refused() {
    let runtime = |name: &str| deal().edit(|terms| terms.job.as_mut().unwrap().runtime = name.into());
    check(&preflight(), &runtime("wasm-1"), "runtime", Level::Ok, &["wasm-1"]);
    check(&preflight(), &runtime("wasm-9"), "runtime", Level::Refuse, &["wasm-9", "wasm-1"]);
    check(&preflight(), &runtime("container-1").majority(), "runtime", Level::Ok, &["not run"]);
    let small = Preflight {
        limits: OperatorLimits { fuel_max: 10, memory_bytes_max: 20, output_bytes_max: 30, wall_ms_max: 40 },
        ..preflight()
    };
    let job = |fuel, memory_bytes, output_bytes, wall_ms| {
        limits(|it| *it = proto::Limits { fuel, memory_bytes, output_bytes, wall_ms })
    };
    check(&small, &job(10, 20, 30, 40), "limits", Level::Ok, &["10 fuel", "20 bytes"]);
    check(&small, &job(11, 20, 30, 40), "limits", Level::Refuse, &["11 fuel", "allows 10"]);
    check(&small, &job(10, 21, 30, 40), "limits", Level::Refuse, &["21 bytes of memory", "allows 20"]);
    check(&small, &job(10, 20, 31, 40), "limits", Level::Refuse, &["31 bytes of output", "allows 30"]);
    check(&small, &job(10, 20, 30, 41), "limits", Level::Refuse, &["41 ms", "allows 40"]);
    check(&small, &job(11, 21, 31, 41).majority(), "limits", Level::Ok, &[]);
    let lines = |pattern: &str| {
        let lines = proto::IgnoreLinesComparator { patterns: vec![pattern.into()] };
        deal().comparator(proto::comparator::Kind::IgnoreLines(lines))
    };
    check(&preflight(), &lines("^time"), "comparator", Level::Ok, &["line by line"]);
    check(&preflight(), &lines("(unclosed"), "comparator", Level::Refuse, &["cannot be used"]);
}

#[test]
fn unpaid_work_is_noted_and_the_price_of_silence_told() {
    check(&preflight(), &deal(), "mediation-fee", Level::Ok, &["200003"]);
    check(&preflight(), &deal().drawn(&PANEL, 3, 2, 0), "mediation-fee", Level::Ok, &["66667 to each of 3"]);
    let unpaid = deal().edit(|terms| terms.pricing.as_mut().unwrap().mediation_fee = "0".into());
    check(&preflight(), &unpaid, "mediation-fee", Level::Note, &["nothing"]);
    check(&preflight(), &deal(), "silence-slash", Level::Ok, &["500000"]);
}

#[test]
fn shares_are_numbers_in_settings_and_whole_millionths_inside() {
    for (text, ppm) in [("0.95", 950_000), ("1", MILLION), ("0", 0), ("2.5", 2_500_000), ("0.0000004", 0)] {
        let share: Share = serde_json::from_str(text).unwrap();
        assert_eq!(share.ppm(), ppm, "{text}");
        assert_eq!(serde_json::from_value::<Share>(serde_json::to_value(share).unwrap()).unwrap(), share);
    }
    for text in ["-0.1", "1e7", "\"0.5\""] {
        assert!(serde_json::from_str::<Share>(text).is_err(), "{text}");
    }
    assert_eq!(Share::from_ppm(950_000).to_string(), "0.95");
    assert_eq!(Share::from_ppm(1).to_string(), "0.000001");
    assert_eq!(Share::from_ppm(0).to_string(), "0");
}
