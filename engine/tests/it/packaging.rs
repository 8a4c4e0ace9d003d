//! What is installed beside the binary fits it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use tribunal_engine::config::{self, Config};

use crate::http::World;

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)
}

fn text(file: &str) -> String {
    std::fs::read_to_string(packaging(file)).unwrap()
}

/// Absent while it has nothing to tell, and not asked for an increase.
const BORN_LATER: [&str; 7] = [
    "tribunal_mediator_deadline_slack_seconds",
    "tribunal_events_refused_total",
    // There from the start where a market is followed, and nowhere else.
    "tribunal_market_cases",
    "tribunal_market_caught_up",
    "tribunal_market_faults_total",
    // Where there is a work queue.
    "tribunal_work_total",
    "tribunal_work_forged_total",
];

/// Names in a PromQL expression that are ours.
fn names(expr: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expr.split(|c| !word(c)).filter(|it| it.starts_with("tribunal_")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_asks_for_metrics_that_exist_and_says_what_to_do() {
    let world = World::new().await;
    let metrics = world.client.get(world.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let served: BTreeSet<_> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let rules = text("tribunal.rules.yml");
    let mut count = 0;
    for alert in rules.split("      - alert: ").skip(1) {
        let (name, _) = alert.split_once('\n').unwrap();
        let field = |key: &str| {
            let line = alert.lines().map(str::trim).find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
            line.unwrap_or_else(|| panic!("{name} has no {key}")).trim()
        };
        let expr = field("expr");
        let asked = names(expr);
        assert!(!asked.is_empty() || expr.starts_with("up{"), "{name} asks for nothing of ours");
        for metric in asked {
            assert!(served.contains(metric.as_str()), "{name} asks for {metric}, which nothing serves");
            // A count that is born at 1 has no increase: nobody would hear of the first time.
            let (_, selected) = expr.split_once(metric.as_str()).unwrap();
            let labels = selected.strip_prefix('{').and_then(|it| it.split('}').next()).unwrap_or_default();
            let sample = |line: &&str| {
                line.strip_prefix(metric.as_str()).is_some_and(|it| it.starts_with(['{', ' '])) && line.contains(labels)
            };
            let born = metrics.lines().any(|line| sample(&line));
            assert!(born || BORN_LATER.contains(&metric.as_str()), "{name} asks for {metric}, which is not there yet");
        }
        for bracket in ["()", "[]", "{}"] {
            let count = |c: usize| expr.matches(&bracket[c..=c]).count();
            assert_eq!(count(0), count(1), "{name}: {expr}");
        }
        assert!(matches!(field("labels"), "{ severity: page }" | "{ severity: ticket }"), "{name}");
        for annotation in ["summary", "runbook"] {
            let value = field(annotation);
            let inner = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
            let inner = inner.unwrap_or_else(|| panic!("{name}: {annotation} is one quoted line"));
            assert!(inner.len() > 20 && !inner.contains('"') && inner.ends_with('.'), "{name}: {annotation}: {inner}");
        }
        count += 1;
    }
    assert_eq!(count, rules.matches("alert:").count());
    assert!(count >= 15, "{count}");
    world.close().await;
}

#[test]
fn the_example_configuration_is_read_and_explains_every_key() {
    let (config, _) = config::load(Some(&packaging("tribunal.toml")), &[]).unwrap();
    let defaults = Config::default();
    assert_eq!(config.policy, defaults.policy);
    assert_eq!(config.verifiers.limits(), defaults.verifiers.limits());
    let text = text("tribunal.toml");
    let json = serde_json::to_value(&defaults).unwrap();
    for (section, keys) in json.as_object().unwrap() {
        let (_, body) = text.split_once(&format!("[{section}]\n")).unwrap_or_else(|| panic!("no [{section}]"));
        let body = body.split("\n[").next().unwrap();
        for (key, value) in keys.as_object().unwrap() {
            if value.is_object() {
                assert!(text.contains(&format!("[{section}.{key}]")), "{section}.{key}");
                continue;
            }
            let lines: Vec<_> = body.lines().collect();
            let shown = |line: &&str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
            assert!(lines.iter().any(shown), "{section}.{key} is not in the example");
        }
    }
}

#[test]
fn the_unit_is_hardened_and_lets_wasmtime_compile() {
    let unit = text("tribunal.service");
    for line in [
        "ExecStart=/usr/local/bin/tribunal serve --config /etc/tribunal/tribunal.toml",
        "DynamicUser=yes",
        "StateDirectory=tribunal",
        "ProtectSystem=strict",
        "PrivateTmp=yes",
        "NoNewPrivileges=yes",
        "MemoryDenyWriteExecute=no",
        "SystemCallFilter=@system-service",
        "LoadCredentialEncrypted=tribunal-password",
        "Restart=on-failure",
        "RestartSec=5",
        "RestartPreventExitStatus=64 78",
        "StartLimitIntervalSec=0",
        "KillSignal=SIGTERM",
    ] {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
    assert!(!unit.contains("\nStartLimitBurst="), "a world that is away for long must not end the unit for good");
    assert!(!unit.contains("\nProcSubset=pid"), "/proc/meminfo is read");
    // A verification may take its whole limit on the clock before the unit stops.
    let stop_s = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")?.parse::<u64>().ok()).unwrap();
    assert!(
        stop_s > Config::default().mediator.grace_s + 10,
        "what is at work has its grace, and then the rest closes"
    );
}
