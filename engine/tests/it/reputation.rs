//! What the record says of providers: the command over the demo's deals.

use std::process::{Command, Output};

use serde_json::Value;

fn tribunal(store: &std::path::Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tribunal"))
        .arg("reputation")
        .args(args)
        .arg("--store")
        .arg(store)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn providers_are_counted_and_the_results_to_check_follow_from_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_tribunal"))
        .args(["demo", "--no-serve", "--bus", "in-process", "--fixtures"])
        .arg(tribunal_fixtures::folder())
        .arg("--out")
        .arg(folder.path().join("demo"))
        .output()
        .unwrap();
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));
    let store = folder.path().join("demo/store");
    let all = json(&tribunal(&store, &["--json"]));
    let providers = all["providers"].as_array().unwrap();
    let sum = |field: &str| providers.iter().map(|it| it[field].as_u64().unwrap()).sum::<u64>();
    assert!(sum("valid") > 3 && sum("invalid") > 3 && sum("accepted") > 0 && sum("missed") > 0, "{all:#}");
    assert!(providers.iter().all(|it| it["check_ppm"] == 1_000_000), "nobody has ten in a row: {all:#}");

    // All of them are strangers, so every result that nobody disputed is to be checked.
    let seed = format!("0x{}", "5a".repeat(32));
    let first = json(&tribunal(&store, &["--json", "--seed", &seed]));
    let results = first["results"].as_array().unwrap();
    assert!(!results.is_empty() && results.iter().all(|it| it["selected"] == true), "{first:#}");
    assert_eq!(json(&tribunal(&store, &["--json", "--seed", &seed])), first, "the same for everybody");
    // In the past fewer were known.
    let past = json(&tribunal(&store, &["--json", "--at", "3"]));
    assert!(past["providers"].as_array().unwrap().len() <= 1, "{past:#}");

    let nobody = tribunal(&store, &["0x00000000000000000000000000000000000000aa"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert_eq!(tribunal(&store, &["--seed", "0x12"]).status.code(), Some(64));
    let table = tribunal(&store, &[]);
    assert!(String::from_utf8_lossy(&table.stdout).lines().next().unwrap().starts_with("provider "));
}
