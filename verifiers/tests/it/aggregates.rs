//! Aggregates of observations, and the recorded requests about models and sensors.

use expect_test::expect;
use serde_json::{Value, json};
use tribunal_events::{B256, Domain, SigningKey, UpdateStruct};
use tribunal_verifiers::{MemorySource, Request};

use crate::bench::{SERVICE, fixture_bytes, fixture_folder, line, verify};

/// A recorded request, edited, judged with the fixtures' files.
fn recorded(name: &str, edit: impl FnOnce(&mut Value)) -> String {
    let mut request: Value = serde_json::from_slice(&fixture_bytes(&format!("requests/{name}.json"))).expect("JSON");
    edit(&mut request);
    let request = Request::parse(&request.to_string());
    let line = line(&request.and_then(|request| SERVICE.verify_from(&request, &fixture_folder(""))));
    line.chars().take(220).collect()
}

#[test]
fn a_quantised_model_is_near_its_full_form_and_another_model_is_not() {
    let mut table = String::new();
    for name in ["model-quantised-topk", "model-quantised-norm", "model-other-topk", "model-other-norm"] {
        table += &format!("{name}: {}\n", recorded(name, |_| {}));
    }
    expect![[r#"
        model-quantised-topk: valid ok: 3 of 3 voters agree on the claim
        model-quantised-norm: valid ok: 3 of 3 voters agree on the claim
        model-other-topk: invalid outvoted: 3 of 3 voters agree on another result: of 48 samples 10 are near, 22 between the bands, 16 far; the first: /out/logits.json: $[5]: 1 of the top 3 in common, not [0]: expected 0.857864799, claimed -0.443
        model-other-norm: invalid outvoted: 3 of 3 voters agree on another result: of 48 samples 0 are near, 0 between the bands, 48 far; the first: /out/logits.json: $[0]: l2 distance 10.767964526156636, largest at [4]: expected -4.232488716, cl
    "#]].assert_eq(&table);
}

#[test]
fn three_prompts_convict_no_model() {
    let three = |request: &mut Value| {
        let short = request.to_string().replace("models/full.json", "models/full-of-three.json");
        let short = short.replace("models/other.json", "models/other-of-three.json");
        *request = short.replace("models/quantised.json", "models/quantised-of-three.json").parse().expect("JSON");
    };
    expect!["inconclusive between-bands: 3 of 3 voters agree, but the claim is between the bands: of 3 samples 3 are near, 0 between the bands, 0 far: too few to tell"].assert_eq(&recorded("model-quantised-topk", three));
    expect!["inconclusive between-bands: 3 of 3 voters agree, but the claim is between the bands: of 3 samples 0 are near, 0 between the bands, 3 far: too few to tell; the first: /out/logits.json: $[0]: l2 distance 10.767964526156636"].assert_eq(&recorded("model-other-norm", three));
}

#[test]
fn a_result_of_another_environment_is_outvoted_by_nobody() {
    expect!["inconclusive other-environment: 3 of 4 voters agree on another result: /out/logits.json: expected blake3:d9496fa18f8066610a11dbac81991072f7dd963f80840219ee6d45f1fdfd2d5b, claimed blake3:db30813290246cb75a0eccb229682e677d"].assert_eq(&recorded("model-quantised-exact", |_| {}));
    let silent = |request: &mut Value| {
        request["claim"].as_object_mut().expect("a claim").remove("environment");
    };
    expect!["invalid outvoted: 3 of 4 voters agree on another result: /out/logits.json: expected blake3:d9496fa18f8066610a11dbac81991072f7dd963f80840219ee6d45f1fdfd2d5b, claimed blake3:db30813290246cb75a0eccb229682e677dcd7006b615ec1b"].assert_eq(&recorded("model-quantised-exact", silent));
}

#[test]
fn aggregates_are_computed_again_from_what_was_observed() {
    let mut table = String::new();
    for name in [
        "sensors-median-with-a-liar",
        "sensors-mean-called-median",
        "sensors-trimmed-mean",
        "sensors-real-anomaly",
        "sensors-anomaly-called-a-lie",
        "updates-averaged",
        "updates-averaged-without-weights",
    ] {
        table += &format!("{name}: {}\n", recorded(name, |_| {}));
    }
    expect![[r#"
        sensors-median-with-a-liar: valid ok: the claim is the median of 9 observations
        sensors-mean-called-median: invalid output-differs: /out/aggregate.json: $[0]: expected 11.94, claimed 7.628888888888889
        sensors-trimmed-mean: valid ok: the claim is the trimmed-mean of 9 observations
        sensors-real-anomaly: valid ok: the claim is the mad-outliers of 9 observations
        sensors-anomaly-called-a-lie: invalid output-differs: /out/aggregate.json: line 1, from byte 881: expected red":[]},{"lone":["s9"],"mad":0.7300000000000004,"median":17…, claimed red":[]},{"lone":["s3","s4","s5","s9"],"mad":0.7300000000000…
        updates-averaged: valid ok: the claim is the fedavg of 3 observations
        updates-averaged-without-weights: invalid output-differs: /out/aggregate.json: $.bias[0]: expected 0.17869386066579157, claimed -0.00678402263050278
    "#]].assert_eq(&table);
}

#[test]
fn an_update_counts_only_as_its_source_signed_it() {
    let edits: [(&str, Value); 4] = [
        ("/method/observations/1/weight", json!(301)),
        ("/method/observations/1/artifact", json!("sensors/update-1.json")),
        ("/method/observations/1/source", json!(format!("0x{}", "11".repeat(20)))),
        ("/deal_id", json!(format!("0x{}", "22".repeat(32)))),
    ];
    let mut table = String::new();
    for (pointer, value) in edits {
        let found = recorded("updates-averaged", |request| match request.pointer_mut(pointer) {
            Some(field) => *field = value,
            None => request["deal_id"] = value,
        });
        table += &format!("{pointer}: {found}\n");
    }
    expect![[r#"
        /method/observations/1/weight: bad request: method.observations[1].signature: is not by 0x1563915e194d8cfba1943570603f7606a3115508 for these bytes
        /method/observations/1/artifact: bad request: method.observations[1].signature: is not by 0x1563915e194d8cfba1943570603f7606a3115508 for these bytes
        /method/observations/1/source: bad request: method.observations[1].signature: is not by 0x1111111111111111111111111111111111111111 for these bytes
        /deal_id: bad request: method.observations[0].signature: is not by 0x19e7e376e7c213b7e7e7e46cc70a5dd086daff2a for these bytes
    "#]].assert_eq(&table);
}

#[test]
fn an_update_may_be_bound_to_its_deal() {
    let key = SigningKey::new([7; 32]).expect("a key");
    let bytes = b"[1,2]";
    let deal = [9; 32];
    let update = UpdateStruct {
        task: B256::new(deal),
        source: tribunal_events::Signer::address(&key),
        weight: 3,
        contentHash: B256::from(*blake3::hash(bytes).as_bytes()),
    };
    let signature = key.sign(Domain::default().digest(&update));
    let mut source = MemorySource::new();
    source.add_file("u", bytes.to_vec());
    let observation = json!({
        "source": format!("{:?}", update.source), "artifact": "u", "weight": 3, "signature": format!("{signature:?}"),
    });
    let request = json!({
        "deal_id": format!("0x{}", hex::encode(deal)),
        "method": { "kind": "aggregate", "function": "fedavg", "observations": [observation] },
        "claim": { "outputs": [{ "path": "/out/a.json", "artifact": "u" }] },
    });
    assert_eq!(line(&verify(&request, &source)), "valid ok: the claim is the fedavg of 1 observations");
}

/// Observations in memory, named a, b, …; the claim is one of them.
fn ask(method: &Value, observations: &[&[u8]], claimed: &str) -> String {
    let mut source = MemorySource::new();
    source.add_file("claimed", claimed.as_bytes().to_vec());
    let mut list = Vec::new();
    for (index, bytes) in observations.iter().enumerate() {
        let name = char::from(b'a' + index as u8).to_string();
        source.add_file(&name, bytes.to_vec());
        list.push(json!({ "source": name, "artifact": name }));
    }
    let mut method = method.clone();
    method["kind"] = json!("aggregate");
    method["observations"] = json!(list);
    let request = json!({
        "method": method,
        "claim": { "outputs": [{ "path": "/out/a.json", "artifact": "claimed" }] },
    });
    line(&verify(&request, &source))
}

fn ask_text(method: &Value, observations: &[&str], claimed: &str) -> String {
    ask(method, &observations.iter().map(|text| text.as_bytes()).collect::<Vec<_>>(), claimed)
}

#[test]
fn functions_are_defined_at_their_edges() {
    let median = json!({ "function": "median" });
    let trimmed = |trim: &str| json!({ "function": "trimmed-mean", "trim": trim });
    let outliers = json!({ "function": "mad-outliers" });
    let mut table = String::new();
    for (method, observations, claimed) in [
        (&median, &["1", "9"][..], "5"),
        (&median, &["1", "2", "900"], "2"),
        (&median, &["-0.0"], "0"),
        (&median, &["1e16", "1e16"], "10000000000000000"),
        (&median, &[r#"{"b":[1],"a":2,"unit":"C"}"#, r#"{"unit":"C","a":4,"b":[3]}"#], r#"{"a":3,"b":[2],"unit":"C"}"#),
        (&median, &["1", "NaN"], "1"),
        (&median, &["1", "1e400"], "1"),
        (&median, &["[1]", "[1,2]"], "[1]"),
        (&median, &[r#"{"a":1}"#, r#"{"b":1}"#], "1"),
        (&median, &[r#"{"u":"C"}"#, r#"{"u":"F"}"#], r#"{"u":"C"}"#),
        (&median, &["x"], "1"),
        (&trimmed("0.25"), &["1", "2", "4", "1000"], "3"),
        (&trimmed("0.249999999"), &["1", "2", "4", "1000"], "251.75"),
        (&trimmed("0.499999999"), &["1", "2", "4", "1000"], "3"),
        (&trimmed("0"), &["1e308", "1e308"], "1e+308"),
        (&outliers, &["1", "1", "1", "2"], r#"{"lone":["d"],"mad":0,"median":1,"shared":[]}"#),
        (&outliers, &["1", "1", "1", "2", "2"], r#"{"lone":[],"mad":0,"median":1,"shared":["d","e"]}"#),
        (&outliers, &["1", "2", "3"], r#"{"lone":[],"mad":1,"median":2,"shared":[]}"#),
    ] {
        table += &format!("{method} {observations:?}: {}\n", ask_text(method, observations, claimed));
    }
    expect![[r#"
        {"function":"median"} ["1", "9"]: valid ok: the claim is the median of 2 observations
        {"function":"median"} ["1", "2", "900"]: valid ok: the claim is the median of 3 observations
        {"function":"median"} ["-0.0"]: valid ok: the claim is the median of 1 observations
        {"function":"median"} ["1e16", "1e16"]: valid ok: the claim is the median of 2 observations
        {"function":"median"} ["{\"b\":[1],\"a\":2,\"unit\":\"C\"}", "{\"unit\":\"C\",\"a\":4,\"b\":[3]}"]: valid ok: the claim is the median of 2 observations
        {"function":"median"} ["1", "NaN"]: inconclusive observation-malformed: b: is no JSON: a value expected (line 1, column 1)
        {"function":"median"} ["1", "1e400"]: inconclusive observation-malformed: b: $: 1e400 is no finite double
        {"function":"median"} ["[1]", "[1,2]"]: inconclusive observation-malformed: b: $: the first has 1 entries, this one 2
        {"function":"median"} ["{\"a\":1}", "{\"b\":1}"]: inconclusive observation-malformed: b: $.a: is in the first and not in this one
        {"function":"median"} ["{\"u\":\"C\"}", "{\"u\":\"F\"}"]: inconclusive observation-malformed: b: $.u: expected C, claimed F
        {"function":"median"} ["x"]: inconclusive observation-malformed: a: is no JSON: a value expected (line 1, column 1)
        {"function":"trimmed-mean","trim":"0.25"} ["1", "2", "4", "1000"]: valid ok: the claim is the trimmed-mean of 4 observations
        {"function":"trimmed-mean","trim":"0.249999999"} ["1", "2", "4", "1000"]: valid ok: the claim is the trimmed-mean of 4 observations
        {"function":"trimmed-mean","trim":"0.499999999"} ["1", "2", "4", "1000"]: valid ok: the claim is the trimmed-mean of 4 observations
        {"function":"trimmed-mean","trim":"0"} ["1e308", "1e308"]: valid ok: the claim is the trimmed-mean of 2 observations
        {"function":"mad-outliers"} ["1", "1", "1", "2"]: valid ok: the claim is the mad-outliers of 4 observations
        {"function":"mad-outliers"} ["1", "1", "1", "2", "2"]: valid ok: the claim is the mad-outliers of 5 observations
        {"function":"mad-outliers"} ["1", "2", "3"]: valid ok: the claim is the mad-outliers of 3 observations
    "#]].assert_eq(&table);
}

#[test]
fn arrays_are_observations_too() {
    let median = json!({ "function": "median" });
    let le = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let npy = |values: &[f32]| crate::comparators::npy("<f4", "(1, 2)", &le(values));
    assert!(ask(&median, &[&npy(&[1.0, 0.1]), &npy(&[3.0, 0.1])], "[[2,0.10000000149011612]]").starts_with("valid"));
    let tensors = |values: &[f32]| {
        crate::comparators::safetensors(r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &le(values))
    };
    assert!(ask(&median, &[&tensors(&[1.0, 5.0]), &tensors(&[3.0, 5.0])], r#"{"w":[2,5]}"#).starts_with("valid"));
}

#[test]
fn the_order_of_observations_changes_nothing() {
    let values = ["0.1", "0.2", "1e16", "-1e16", "0.3", "7"];
    for method in [json!({ "function": "trimmed-mean", "trim": "0" }), json!({ "function": "median" })] {
        let own = |values: &[&str]| {
            let mut source = MemorySource::new();
            let observation = |(index, text): (usize, &&str)| {
                source.add_file(&format!("{index}"), text.as_bytes().to_vec());
                json!({ "source": format!("{index}"), "artifact": format!("{index}") })
            };
            let list: Vec<_> = values.iter().enumerate().map(observation).collect();
            let mut method = method.clone();
            method["kind"] = json!("aggregate");
            method["observations"] = json!(list);
            let claim = json!({ "outputs": [{ "path": "/out/a.json", "artifact": "0" }] });
            let verdict = verify(&json!({ "method": method, "claim": claim }), &source).expect("a good request");
            verdict.evidence.fields["own_outputs"].clone()
        };
        let first = own(&values);
        let mut turned = values;
        for _ in 0..values.len() {
            turned.rotate_left(1);
            turned.swap(0, 3);
            assert_eq!(own(&turned), first, "{turned:?}");
        }
    }
}
