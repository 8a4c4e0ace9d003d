//! The binary as its users meet it: output and exit codes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tribunal_engine::store::{Fsync, Store};

fn tribunal(args: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tribunal")).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").canonicalize().unwrap()
}

#[test]
fn bad_usage_ends_with_64_and_help_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["no-such-command"][..], &["verify"], &["audit", "--no-such-flag"], &[]] {
        assert_eq!(tribunal(args, folder.path()).status.code(), Some(64), "{args:?}");
    }
    let help = [
        "demo", "serve", "sign", "submit", "deals", "verify", "audit", "bundle", "keys", "policy", "mediator", "import",
    ];
    for command in help {
        let output = tribunal(&[command, "--help"], folder.path());
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Example"), "{command} --help has no example");
    }
}

#[test]
fn an_unreadable_configuration_ends_with_78_and_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tribunal.toml"), "[store]\nfsync = \"sometimes\"\n").unwrap();
    let output = tribunal(&["serve"], folder.path());
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("fsync"), "{output:?}");
    let output = tribunal(&["serve", "--config", "missing.toml"], folder.path());
    assert_eq!(output.status.code(), Some(78));
}

#[test]
fn a_world_that_is_not_there_ends_with_69() {
    let folder = tempfile::tempdir().unwrap();
    let output = tribunal(&["serve", "--bus-url", "nats://127.0.0.1:1", "--listen", "127.0.0.1:0"], folder.path());
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let output = tribunal(&["deals", "--store", "nowhere"], folder.path());
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}

#[test]
fn settings_show_where_they_come_from() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tribunal.toml"), "[http]\nlisten = \"127.0.0.1:9999\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tribunal"))
        .args(["serve", "--print-config", "--store", "elsewhere"])
        .env("TRIBUNAL_BUS__STREAM", "OTHER")
        .current_dir(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("http.listen = \"127.0.0.1:9999\"  # "), "{text}");
    assert!(text.contains("bus.stream = \"OTHER\""), "{text}");
    assert!(text.contains("store.path = \"elsewhere\""), "{text}");
    assert!(text.contains("store.fsync = \"always\"  # default"), "{text}");
}

#[test]
fn settings_are_shown_without_what_is_secret() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "[bus]\nurl = \"nats://secret:secret@127.0.0.1:4222\"\n\
        [chain]\nrpc_url = \"https://node.example:8545/v3/secret\"\n\
        [chain.contracts]\ntoken = \"0x1111111111111111111111111111111111111111\"\n\
        [mediator]\nsigner_url = \"https://signer.example/?key=secret\"\n\
        follow = [{ url = \"https://secret@one.example:81\", token = \"secret\",\
        operator = \"0x1111111111111111111111111111111111111111\" }]\n[http]\ntoken = \"secret\"\n";
    std::fs::write(folder.path().join("tribunal.toml"), settings).unwrap();
    let output = tribunal(&["serve", "--print-config"], folder.path());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("secret"), "{text}");
    for line in [
        "bus.url = \"nats://…@127.0.0.1:4222\"",
        "chain.rpc_url = \"https://node.example:8545/…\"",
        "\"token\":\"…\",\"url\":\"https://…@one.example:81\"}]",
        "mediator.signer_url = \"https://signer.example/…\"",
        "http.token = \"…\"",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains("\"token\":\"0x1111111111111111111111111111111111111111\""), "{text}");
}

#[test]
fn a_share_above_the_whole_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for key in ["margin", "detection", "colluding", "check_probability"] {
        std::fs::write(folder.path().join("tribunal.toml"), format!("[policy]\n{key} = 25\n")).unwrap();
        let output = tribunal(&["serve", "--print-config"], folder.path());
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("policy.{key} ")), "{output:?}");
    }
    std::fs::write(folder.path().join("tribunal.toml"), "[policy]\ngain = 25\n").unwrap();
    assert!(
        tribunal(&["serve", "--print-config"], folder.path()).status.success(),
        "a cheat may gain more than the price"
    );
}

#[test]
fn a_node_that_is_away_is_named_with_the_cause() {
    let folder = tempfile::tempdir().unwrap();
    tribunal(&["keys", "new", "key.json", "--insecure-dev-key"], folder.path());
    let account = "0x1111111111111111111111111111111111111111";
    let settings = format!(
        "[chain]\nrpc_url = \"http://127.0.0.1:1/secret\"\nkeystore = \"key.json\"\n[chain.contracts]\n\
         escrow = \"{account}\"\nregistry = \"{account}\"\ntoken = \"{account}\"\n"
    );
    std::fs::write(folder.path().join("tribunal.toml"), settings).unwrap();
    let output = tribunal(&["serve", "--listen", "127.0.0.1:0"], folder.path());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{said}");
    let refused = said.to_lowercase().contains("connection refused");
    assert!(said.contains("cannot be reached: 127.0.0.1:1: ") && refused && !said.contains("secret"), "{said}");
}

#[test]
fn reading_about_a_new_key_takes_no_password() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "correct horse\n").unwrap();
    let output = tribunal(&["--json", "keys", "new", "key.json", "--password-file", "password"], folder.path());
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = folder.path().join("key.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let keystore: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(keystore["address"], made["address"]);
    std::fs::write(folder.path().join("tribunal.toml"), "[mediator]\nkeystore = \"key.json\"\n").unwrap();
    drop(Store::open(folder.path().join("tribunal-data"), Fsync::Never).unwrap());
    for args in [&["keys", "show", "key.json"][..], &["mediator", "inbox"], &["mediator", "earnings"]] {
        let output = tribunal(args, folder.path());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains(made["address"].as_str().unwrap()), "{args:?}: {output:?}");
    }
    // A copy that is no store is left out, and said so.
    let copy = folder.path().join("tribunal-data.followed/broken");
    std::fs::create_dir_all(copy).unwrap();
    let output = tribunal(&["mediator", "inbox", "--urgent"], folder.path());
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("broken"), "{output:?}");
    // A keystore that names somebody else's account is none.
    let other = text.replace(made["address"].as_str().unwrap(), "0x0000000000000000000000000000000000000001");
    std::fs::write(&path, other).unwrap();
    let output = tribunal(&["sign", "key.json", "--key", "key.json", "--password-file", "password"], folder.path());
    assert_eq!(output.status.code(), Some(78), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the key is of"), "{output:?}");
    std::fs::write(folder.path().join("tribunal.toml"), "").unwrap();
    for command in ["inbox", "earnings"] {
        assert_eq!(
            tribunal(&["mediator", command], folder.path()).status.code(),
            Some(78),
            "{command}: nobody is named"
        );
    }
}

#[test]
fn keys_are_made_shown_and_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "correct horse\n").unwrap();
    let new = ["keys", "new", "key.json", "--password-file", "password"];
    let output = tribunal(&new, folder.path());
    assert!(output.status.success(), "{output:?}");
    let address = String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap().to_owned();
    let text = std::fs::read_to_string(folder.path().join("key.json")).unwrap();
    let keystore: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(keystore["version"], 3, "a Web3 keystore");
    let show = ["keys", "show", "key.json", "--password-file", "password"];
    let output = tribunal(&show, folder.path());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&address), "{output:?}");
    assert_eq!(tribunal(&new, folder.path()).status.code(), Some(64), "the file is there already");
    assert_eq!(std::fs::read_to_string(folder.path().join("key.json")).unwrap(), text);
    std::fs::write(folder.path().join("wrong"), "incorrect\n").unwrap();
    let output = tribunal(&["sign", "key.json", "--key", "key.json", "--password-file", "wrong"], folder.path());
    assert_eq!(output.status.code(), Some(78), "a wrong password: {output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("wrong password for key.json"), "{output:?}");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(folder.path().join("key.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner alone");
}

#[test]
fn a_plain_key_is_marked_shown_and_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let output = tribunal(&["--json", "keys", "new", "key.json", "--insecure-dev-key"], folder.path());
    assert!(output.status.success(), "{output:?}");
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = std::fs::read_to_string(folder.path().join("key.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(made["address"], file["address"]);
    let secret = file["insecure_dev_key"].as_str().unwrap().trim_start_matches("0x").to_owned();
    let said = |output: &Output| [output.stdout.clone(), output.stderr.clone()].concat();
    let shown = tribunal(&["keys", "show", "key.json"], folder.path());
    assert!(String::from_utf8_lossy(&shown.stdout).starts_with(made["address"].as_str().unwrap()), "{shown:?}");
    // A file that contradicts itself is refused without showing what is in it.
    let other = text.replace(file["address"].as_str().unwrap(), "0x0000000000000000000000000000000000000001");
    std::fs::write(folder.path().join("wrong.json"), other).unwrap();
    let wrong = tribunal(&["sign", "key.json", "--key", "wrong.json"], folder.path());
    assert_eq!(wrong.status.code(), Some(78), "{wrong:?}");
    for output in [output, shown, wrong] {
        assert!(!String::from_utf8_lossy(&said(&output)).contains(&secret), "a secret is printed");
    }
}

#[test]
fn a_damaged_keystore_is_told_from_a_wrong_password() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "correct horse\n").unwrap();
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    let output = tribunal(&["keys", "new", "key.json", "--password-file", "empty"], folder.path());
    assert_eq!(output.status.code(), Some(78), "an empty password: {output:?}");
    assert!(!folder.path().join("key.json").exists(), "nothing is left of what failed");
    let output = tribunal(&["keys", "new", "key.json", "--password-file", "password"], folder.path());
    assert!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(folder.path().join("key.json")).unwrap();
    let good: serde_json::Value = serde_json::from_str(&text).unwrap();
    type Change = fn(&mut serde_json::Value);
    let changes: [Change; 8] = [
        |it| it["version"] = 1.into(),
        |it| it["crypto"]["kdfparams"]["n"] = (1u64 << 40).into(),
        |it| it["crypto"]["kdfparams"]["n"] = 0.into(),
        |it| it["crypto"]["kdfparams"]["dklen"] = 8.into(),
        |it| it["crypto"]["kdfparams"]["dklen"] = (1u64 << 50).into(),
        |it| it["crypto"]["cipherparams"]["iv"] = "00".into(),
        |it| it["crypto"]["cipher"] = "rot13".into(),
        |it| it["crypto"]["mac"] = "".into(),
    ];
    for (change, number) in changes.iter().zip(0..) {
        let mut bad = good.clone();
        change(&mut bad);
        std::fs::write(folder.path().join("bad.json"), bad.to_string()).unwrap();
        let args = ["sign", "key.json", "--key", "bad.json", "--password-file", "password"];
        let output = tribunal(&args, folder.path());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "change {number}: {said}");
        assert!(said.contains("keystore") && !said.contains("password"), "change {number}: {said}");
    }
}

#[test]
fn verify_tells_valid_invalid_inconclusive_and_bad_requests_apart() {
    let requests = fixtures().join("requests");
    for (name, code, reason) in [
        ("wordcount-valid.json", 0, "ok"),
        ("wordcount-invalid.json", 1, "output-differs"),
        ("unknown-runtime.json", 3, "unknown-runtime"),
        ("missing-file.json", 2, ""),
        ("escaping-path.json", 2, ""),
        ("product-proof-valid.json", 0, "ok"),
        ("product-proof-wrong-inputs.json", 1, "proof"),
        ("majority-outlier.json", 0, "ok"),
        ("heat-within-tolerance.json", 0, "ok"),
    ] {
        let path = requests.join(name);
        let output = tribunal(
            &["--json", "verify", path.to_str().unwrap(), "--artifacts", fixtures().to_str().unwrap()],
            &fixtures(),
        );
        assert_eq!(output.status.code(), Some(code), "{name}: {output:?}");
        if code == 2 {
            assert!(!output.stderr.is_empty(), "{name} names what is wrong");
            continue;
        }
        let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(verdict["reason"]["code"].as_str().unwrap().starts_with(reason), "{name}: {verdict}");
        assert!(verdict["digest"].as_str().unwrap().starts_with("blake3:"), "{name}");
        assert!(verdict.get("signer").is_none(), "{name}: no key, no signature");
    }
}

#[test]
fn a_demo_never_replaces_a_store_that_no_demo_made() {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("store/record");
    std::fs::create_dir(folder.path().join("store")).unwrap();
    std::fs::write(&record, "somebody's").unwrap();
    let fixtures = fixtures();
    let out = folder.path().to_str().unwrap();
    let args = ["demo", "--no-serve", "--bus", "in-process", "--fixtures", fixtures.to_str().unwrap(), "--out", out];
    let output = tribunal(&args, folder.path());
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    assert_eq!(std::fs::read_to_string(&record).unwrap(), "somebody's");
}

/// Terms as the README's operator writes them, with fields of `terms` replaced.
fn terms(folder: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let account = |digit: &str| format!("0x{}", digit.repeat(40));
    let artifact = format!("sha256:{}", "ab".repeat(32));
    let mut terms = serde_json::json!({
        "version": 1, "nonce": format!("0x{}", "07".repeat(32)),
        "members": { "client": account("1"), "provider": account("2"), "operator": account("3") },
        "job": { "runtime": "wasm-1", "module": artifact, "args": ["wordcount"], "outputs": ["/out"],
            "limits": { "fuel": "1000000000", "memory_bytes": "67108864", "output_bytes": "1048576", "wall_ms": "60000" } },
        "method": { "reexecution": {} }, "comparator": { "exact": {} },
        "mediation": { "appointed": {}, "mediators": [account("4")] },
        "pricing": { "fixed": { "price": "1000" }, "payment_collateral": "1000", "results_collateral": "4000", "mediation_fee": "100" },
        "timeouts": { "agree_by_s": "1772356200", "submit_s": "600", "judge_s": "600", "availability_s": "60",
            "mediate_s": "600", "submit_collateral": "50", "judge_collateral": "50" },
        "fee": { "fee_bps": 100, "victim_bps": 5000 },
        "settlement": { "rule": 1, "chain_id": "31337", "contract": account("5"), "token": account("6"), "treasury": account("3") }
    });
    change(&mut terms);
    std::fs::write(folder.join("bare.json"), terms.to_string()).unwrap();
    let proposed = serde_json::json!({ "proposed": { "terms": terms } });
    std::fs::write(folder.join("proposed.json"), proposed.to_string()).unwrap();
}

#[test]
fn policy_says_what_this_operator_would_judge() {
    let folder = tempfile::tempdir().unwrap();
    let policy = |file: &str, more: &[&str]| {
        let args = [&["--json", "policy", "check", file, "--now", "2026-03-01T09:00:00Z"][..], more].concat();
        let output = tribunal(&args, folder.path());
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), answer)
    };
    let finding = |answer: &serde_json::Value, code: &str| {
        answer["findings"].as_array().unwrap().iter().find(|it| it["code"] == code).unwrap().clone()
    };
    terms(folder.path(), |_| ());
    for file in ["bare.json", "proposed.json"] {
        let (code, answer) = policy(file, &[]);
        assert_eq!((code, &answer["would_judge"]), (Some(0), &true.into()), "{answer:#}");
    }
    // Collateral of nothing, d below 1 by settings: refused with the figures.
    terms(folder.path(), |terms| terms["pricing"]["results_collateral"] = "0".into());
    std::fs::write(folder.path().join("strict.toml"), "[policy]\ndetection = 0.5\ncheck_probability = 0.1\n").unwrap();
    let (code, answer) = policy("proposed.json", &["--config", "strict.toml"]);
    assert_eq!((code, &answer["would_judge"]), (Some(1), &false.into()), "{answer:#}");
    let found = finding(&answer, "collateral");
    assert_eq!(found["level"], "refuse");
    assert!(found["sentence"].as_str().unwrap().contains("at least 1000"), "{found}");
    let output = tribunal(&["policy", "check", "bare.json", "--config", "strict.toml"], folder.path());
    assert_eq!(output.status.code(), Some(1), "the time to agree is over, too");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("refuse  agree-by") && text.ends_with("would refuse it.\n"), "{text}");
    // No terms, no moment, no settings.
    std::fs::write(folder.path().join("broken.json"), "{ \"version\": 2 }").unwrap();
    for (args, code) in [
        (&["policy", "check", "broken.json"][..], 2),
        (&["policy", "check", "missing.json"], 2),
        (&["policy", "check", "bare.json", "--now", "tomorrow"], 64),
        (&["policy", "check"], 64),
        (&["policy", "check", "bare.json", "--config", "missing.toml"], 78),
    ] {
        let output = tribunal(args, folder.path());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{args:?} says why");
    }
}
