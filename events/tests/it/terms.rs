//! Terms that are wrong are refused by the name of the field that is wrong.

use tribunal_events::{Comparator, Metric, Terms, TermsError, proto};
use tribunal_fixtures::{TermsBuilder, keys};

use crate::terms;

fn field(terms: TermsBuilder) -> &'static str {
    match Terms::decode(&terms.bytes()) {
        Err(TermsError::Field { field, .. }) => field,
        other => panic!("not refused: {other:?}"),
    }
}

fn wrong(change: impl FnOnce(&mut proto::Terms)) -> &'static str {
    field(terms().edit(change))
}

#[test]
fn good_terms_of_every_sort_are_taken() {
    for terms in [
        terms(),
        terms().without_contract(),
        terms().metered(1, 5),
        terms().majority(),
        terms().drawn(&["m1", "m2", "m3", "m4"], 4, 3, 3),
        terms().appointed("m7", 3),
    ] {
        let read = terms.build();
        assert_eq!((read.message(), read.bytes()), (terms.message(), terms.bytes().as_slice()));
    }
}

#[test]
fn every_name_makes_another_deal() {
    let ids: std::collections::BTreeSet<_> =
        (0..50).map(|n| TermsBuilder::new(&n.to_string()).build().deal_id()).collect();
    assert_eq!(ids.len(), 50);
}

#[test]
fn versions_and_nonces_are_checked() {
    assert_eq!(wrong(|it| it.version = 2), "version");
    assert_eq!(wrong(|it| it.nonce = vec![1; 31]), "nonce");
    assert_eq!(wrong(|it| it.settlement = None), "settlement.rule");
    assert_eq!(wrong(|it| it.settlement.as_mut().expect("set").rule = 2), "settlement.rule");
}

#[test]
fn members_are_three_and_two_of_them_differ() {
    let members = |change: fn(&mut proto::Members)| wrong(|it| change(it.members.as_mut().expect("set")));
    assert_eq!(members(|it| it.client.clear()), "members.client");
    assert_eq!(members(|it| it.provider = vec![0; 20]), "members.provider");
    assert_eq!(members(|it| it.operator = vec![1; 19]), "members.operator");
    assert_eq!(members(|it| it.solver = vec![1; 21]), "members.solver");
    assert_eq!(members(|it| it.provider = it.client.clone()), "members.provider");
    assert_eq!(wrong(|it| it.settlement.as_mut().expect("set").treasury.clear()), "settlement.treasury");
}

#[test]
fn a_chain_and_a_contract_go_together() {
    assert_eq!(wrong(|it| it.settlement.as_mut().expect("set").chain_id = 0), "settlement.contract");
    assert_eq!(wrong(|it| it.settlement.as_mut().expect("set").contract.clear()), "settlement.contract");
}

#[test]
fn mediators_are_ascending_and_no_parties() {
    let mediators = |list: &[&str]| {
        let list: Vec<_> = keys::addresses(list).into_iter().map(|it| it.to_vec()).collect();
        field(terms().drawn(&["m1"], 1, 1, 0).edit(|it| it.mediation.as_mut().expect("set").mediators = list))
    };
    assert_eq!(mediators(&[]), "mediation.mediators");
    assert_eq!(mediators(&["m1", "client"]), "mediation.mediators");
    assert_eq!(mediators(&["m1", "provider"]), "mediation.mediators");
    assert_eq!(mediators(&["m1", "m1"]), "mediation.mediators");
    let backwards = |it: &mut proto::Terms| it.mediation.as_mut().expect("set").mediators.reverse();
    assert_eq!(field(terms().drawn(&["m1", "m2"], 2, 2, 0).edit(backwards)), "mediation.mediators");
    let two = keys::addresses(&["m1", "m2"]).into_iter().map(|it| it.to_vec()).collect();
    assert_eq!(wrong(|it| it.mediation.as_mut().expect("set").mediators = two), "mediation.mediators");
}

#[test]
fn a_quorum_is_more_than_half_and_at_most_all() {
    let drawn = |size, quorum, redraws| field(terms().drawn(&["m1", "m2", "m3", "m4"], size, quorum, redraws));
    assert_eq!(drawn(4, 2, 0), "mediation.drawn.quorum");
    assert_eq!(drawn(3, 1, 0), "mediation.drawn.quorum");
    assert_eq!(drawn(3, 4, 0), "mediation.drawn.quorum");
    assert_eq!(drawn(0, 0, 0), "mediation.drawn.panel_size");
    assert_eq!(drawn(5, 3, 0), "mediation.drawn.panel_size");
    assert_eq!(drawn(3, 2, 4), "mediation.redraws");
}

#[test]
fn a_draw_has_a_window_and_an_appointment_none() {
    let window = |draw_s| move |it: &mut proto::Terms| it.timeouts.as_mut().expect("set").draw_s = draw_s;
    assert_eq!(wrong(window(1)), "timeouts.draw_s");
    assert_eq!(field(terms().drawn(&["m1"], 1, 1, 0).edit(window(0))), "timeouts.draw_s");
}

#[test]
fn prices_are_covered_and_amounts_are_plain_and_bounded() {
    let pricing = |change: fn(&mut proto::Pricing)| wrong(|it| change(it.pricing.as_mut().expect("set")));
    assert_eq!(pricing(|it| it.kind = None), "pricing");
    assert_eq!(pricing(|it| it.payment_collateral = "999999".into()), "pricing.payment_collateral");
    assert_eq!(pricing(|it| it.results_collateral = "01".into()), "pricing.results_collateral");
    assert_eq!(pricing(|it| it.mediation_fee = "-1".into()), "pricing.mediation_fee");
    // 2^192
    let large = "6277101735386680763835789423207666416102355444464034512896";
    assert_eq!(wrong(|it| it.pricing.as_mut().expect("set").results_collateral = large.into()), "pricing");
    let below = "6277101735386680763835789423207666416102355444464034512895";
    terms().edit(|it| it.pricing.as_mut().expect("set").results_collateral = below.into()).build();
    assert_eq!(wrong(|it| it.fee.as_mut().expect("set").fee_bps = 10_001), "fee.fee_bps");
    assert_eq!(wrong(|it| it.fee.as_mut().expect("set").victim_bps = 10_001), "fee.victim_bps");
}

#[test]
fn only_metered_work_is_priced_by_the_instruction() {
    assert_eq!(field(terms().metered(1, 5).majority()), "pricing.metered");
    let container = |it: &mut proto::Terms| it.job.as_mut().expect("set").runtime = "oci-1".into();
    assert_eq!(field(terms().metered(1, 5).edit(container)), "pricing.metered");
}

#[test]
fn durations_are_whole_seconds_within_reason() {
    let timeouts = |change: fn(&mut proto::Timeouts)| wrong(|it| change(it.timeouts.as_mut().expect("set")));
    assert_eq!(timeouts(|it| it.submit_s = 0), "timeouts.submit_s");
    assert_eq!(timeouts(|it| it.judge_s = u64::MAX), "timeouts.judge_s");
    assert_eq!(timeouts(|it| it.availability_s = 0), "timeouts.availability_s");
    assert_eq!(timeouts(|it| it.mediate_s = 0), "timeouts.mediate_s");
    assert_eq!(timeouts(|it| it.agree_by_s = 0), "timeouts.agree_by_s");
    assert_eq!(timeouts(|it| it.agree_by_s = u64::MAX), "timeouts.agree_by_s");
}

#[test]
fn a_job_names_its_parts_by_content_and_plain_paths() {
    let job = |change: fn(&mut proto::Job)| wrong(|it| change(it.job.as_mut().expect("set")));
    assert_eq!(job(|it| it.module = "job.wasm".into()), "job.module");
    assert_eq!(job(|it| it.stdin = "blake3:00".into()), "job.stdin");
    assert_eq!(job(|it| it.runtime.clear()), "job.runtime");
    assert_eq!(job(|it| it.inputs.push(it.inputs[0].clone())), "job.inputs");
    assert_eq!(job(|it| it.env.push(it.env[0].clone())), "job.env");
    assert_eq!(job(|it| it.limits = None), "job.limits");
    for path in ["out", "/", "/../etc", "/a//b", "/a/./b", "/a/", "/a\0"] {
        let outputs = vec![path.to_owned()];
        assert_eq!(wrong(|it| it.job.as_mut().expect("set").outputs = outputs), "job.outputs", "{path:?}");
    }
}

#[test]
fn a_proof_is_bound_to_the_deal_and_to_its_output() {
    let proof = |bind: &[&str]| {
        let bind = bind.iter().map(|to| proto::ProofBinding { input: 0, to: (*to).into() }).collect();
        terms().method(proto::method::Kind::Proof(proto::ProofMethod {
            system: "groth16".into(),
            curve: "bn254".into(),
            verification_key: terms().message().job.as_ref().expect("set").module.clone(),
            bind,
        }))
    };
    proof(&["deal-id", "output-digest"]).build();
    assert_eq!(field(proof(&["deal-id"])), "method.proof.bind");
    assert_eq!(field(proof(&["output-digest"])), "method.proof.bind");
    assert_eq!(field(proof(&["deal-id", "output-digest", "weather"])), "method.proof.bind");
}

#[test]
fn comparators_have_finite_tolerances() {
    use proto::comparator::Kind;
    let numeric = |relative: &str| {
        terms().comparator(Kind::Numeric(proto::NumericComparator { relative: relative.into(), ..Default::default() }))
    };
    numeric("1e-6").build();
    for text in ["-1", "inf", "NaN", "x"] {
        assert_eq!(field(numeric(text)), "comparator.numeric.relative");
    }
    let image = |psnr: &str, ssim: &str| {
        terms().comparator(Kind::Image(proto::ImageComparator { psnr_db_min: psnr.into(), ssim_min: ssim.into() }))
    };
    image("30", "").build();
    assert_eq!(field(image("30", "0.9")), "comparator.image");
    assert_eq!(field(image("", "")), "comparator.image");
}

#[test]
fn comparators_over_samples_declare_their_bands_and_errors() {
    use proto::comparator::Kind;
    let test = || {
        let text = |text: &str| text.to_owned();
        let (alpha, beta, honest_rate, cheat_rate) = (text("0.001"), text("0.01"), text("0.01"), text("0.5"));
        Some(proto::SequentialTest { alpha, beta, honest_rate, cheat_rate })
    };
    let norm = |change: fn(&mut proto::NormComparator)| {
        let (metric, accept, reject) = ("l2".to_owned(), "0.01".to_owned(), "0.1".to_owned());
        let mut norm = proto::NormComparator {
            metric,
            accept_relative: accept,
            reject_relative: reject,
            test: test(),
            ..Default::default()
        };
        change(&mut norm);
        terms().comparator(Kind::Norm(norm))
    };
    let built = norm(|_| {}).build();
    let Comparator::Norm { metric: Metric::L2, accept, test: declared, .. } = &built.comparator else { panic!() };
    assert_eq!((accept.relative.as_str(), declared.alpha.as_str()), ("0.01", "0.001"));
    assert_eq!(declared.parts(), Ok([1_000_000, 10_000_000, 10_000_000, 500_000_000]));
    assert_eq!(field(norm(|it| it.metric = "l1".into())), "comparator.norm.metric");
    assert_eq!(field(norm(|it| it.reject_relative = "0.001".into())), "comparator.norm.reject_relative");
    assert_eq!(field(norm(|it| it.accept_absolute = "1".into())), "comparator.norm.reject_absolute");
    assert_eq!(field(norm(|it| it.test = None)), "comparator.norm.test.alpha");
    assert_eq!(field(norm(|it| it.test.as_mut().expect("set").beta = "0.5".into())), "comparator.norm.test.beta");
    let rate = |it: &mut proto::NormComparator| it.test.as_mut().expect("set").cheat_rate = "0.01".into();
    assert_eq!(field(norm(rate)), "comparator.norm.test.cheat_rate");
    let topk = |k, accept_overlap, reject_overlap| {
        let over = "logits".to_owned();
        terms().comparator(Kind::Topk(proto::TopkComparator { over, k, accept_overlap, reject_overlap, test: test() }))
    };
    topk(5, 4, 2).build();
    assert_eq!(field(topk(0, 4, 2)), "comparator.topk.k");
    assert_eq!(field(topk(5, 6, 2)), "comparator.topk.accept_overlap");
    assert_eq!(field(topk(5, 4, 5)), "comparator.topk.reject_overlap");
    let toploc = |accept, reject| {
        terms().comparator(Kind::Toploc(proto::ToplocComparator {
            topk: 128,
            batch: 32,
            accept_exp_mismatches: accept,
            accept_mant_err_mean: "10".into(),
            accept_mant_err_median: "8".into(),
            reject_exp_mismatches: reject,
            reject_mant_err_mean: "20".into(),
            reject_mant_err_median: "16".into(),
            test: test(),
        }))
    };
    toploc(38, 64).build();
    assert_eq!(field(toploc(38, 37)), "comparator.toploc.reject_exp_mismatches");
    assert_eq!(field(toploc(129, 129)), "comparator.toploc.accept_exp_mismatches");
}

#[test]
fn terms_have_a_limit() {
    let long = terms().edit(|it| it.job.as_mut().expect("set").args = vec!["x".repeat(4096); 16]);
    assert_eq!(Terms::decode(&long.bytes()), Err(TermsError::Size(long.bytes().len())));
    assert!(matches!(Terms::decode(&[0xff; 4]), Err(TermsError::Decode(_))));
    assert_eq!(field(terms().edit(|it| it.job.as_mut().expect("set").args = vec!["x".repeat(4097)])), "job.args");
}
