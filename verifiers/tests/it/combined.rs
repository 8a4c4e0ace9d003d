//! all, any, threshold and external.

use std::sync::Arc;

use expect_test::expect;
use serde_json::{Value, json};
use tribunal_events::VerdictKind;
use tribunal_verifiers::{ExternalAnswer, ExternalVerifier, MemorySource, OperatorLimits, Request, Service};

use crate::bench::line;

/// Answers with its own name.
struct Oracle;

impl ExternalVerifier for Oracle {
    fn ask(&self, verifier: &str, _: &Request) -> Result<ExternalAnswer, String> {
        let verdict = match verifier {
            "yes" => VerdictKind::Valid,
            "no" => VerdictKind::Invalid,
            "maybe" => VerdictKind::Inconclusive,
            _ => return Err("nobody answers".into()),
        };
        let code = format!("says-{verifier}");
        Ok(ExternalAnswer { verdict, code, detail: "asked".into(), evidence: Value::Null, signature: None })
    }
}

fn ask(method: &Value) -> String {
    let service = Service::new(OperatorLimits::default(), Vec::new()).with_external(Arc::new(Oracle));
    let request = Request::parse(&json!({ "method": method }).to_string()).expect("a good request");
    line(&service.verify_from(&request, &MemorySource::new()))
}

fn of(kind: &str, k: Option<u64>, words: &str) -> String {
    let of: Vec<_> = words.split(' ').map(|word| json!({ "kind": "external", "verifier": word })).collect();
    let mut method = json!({ "kind": kind, "of": of });
    if let Some(k) = k {
        method["k"] = json!(k);
    }
    ask(&method)
}

#[test]
fn combinations_are_three_valued() {
    let mut table = String::new();
    for (kind, k) in [("all", None), ("any", None), ("threshold", Some(2))] {
        for words in ["yes yes yes", "yes yes no", "yes maybe no", "maybe maybe yes", "no maybe no", "no no no"] {
            table += &format!("{kind:9} {words:15} {}\n", of(kind, k, words));
        }
    }
    expect![[r#"
        all       yes yes yes     valid ok: 3 of 3 say valid, 3 are needed
        all       yes yes no      invalid says-no: of[2]: asked
        all       yes maybe no    invalid says-no: of[2]: asked
        all       maybe maybe yes inconclusive says-maybe: of[0]: asked
        all       no maybe no     invalid says-no: of[0]: asked
        all       no no no        invalid says-no: of[0]: asked
        any       yes yes yes     valid ok: 3 of 3 say valid, 1 are needed
        any       yes yes no      valid ok: 2 of 3 say valid, 1 are needed
        any       yes maybe no    valid ok: 1 of 3 say valid, 1 are needed
        any       maybe maybe yes valid ok: 1 of 3 say valid, 1 are needed
        any       no maybe no     inconclusive says-maybe: of[1]: asked
        any       no no no        invalid says-no: of[0]: asked
        threshold yes yes yes     valid ok: 3 of 3 say valid, 2 are needed
        threshold yes yes no      valid ok: 2 of 3 say valid, 2 are needed
        threshold yes maybe no    inconclusive says-maybe: of[1]: asked
        threshold maybe maybe yes inconclusive says-maybe: of[0]: asked
        threshold no maybe no     invalid says-no: of[0]: asked
        threshold no no no        invalid says-no: of[0]: asked
    "#]]
    .assert_eq(&table);
}

#[test]
fn an_external_verifier_that_does_not_answer_is_inconclusive() {
    expect!["inconclusive verifier-unavailable: verifier gone: nobody answers"]
        .assert_eq(&ask(&json!({ "kind": "external", "verifier": "gone" })));
    let request = Request::parse(r#"{ "method": { "kind": "external", "verifier": "yes" } }"#).expect("a good request");
    let alone = Service::new(OperatorLimits::default(), Vec::new());
    expect!["inconclusive verifier-unavailable: verifier yes: this service asks no out-of-process verifiers"]
        .assert_eq(&line(&alone.verify(&request)));
}
