use std::path::{Path, PathBuf};

use tribunal_engine::demo::{BusChoice, RecordedDeal, play, read, stage};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

async fn play_all(bus: BusChoice, deals: &[RecordedDeal]) -> (Vec<String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let stage = stage(&fixtures(), folder.path(), Some(bus)).await.unwrap();
    let played = play(&stage, deals, |_, _| {}).await.unwrap();
    let differences = played
        .iter()
        .flat_map(|deal| deal.differences.iter().map(|difference| format!("{}: {difference}", deal.name)))
        .collect();
    let links = stage.engine.store().log(1).map(|record| record.unwrap().link.to_string()).collect();
    stage.engine.shutdown().await;
    (differences, links)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_deal_gives_what_it_should_and_the_same_log_over_both_busses() {
    let deals = read(&fixtures()).unwrap();
    assert!(deals.len() >= 10, "at least ten recorded deals, found {}", deals.len());
    let (differences, over_nats) = play_all(BusChoice::Nats, &deals).await;
    assert_eq!(differences, Vec::<String>::new());
    let (differences, in_process) = play_all(BusChoice::InProcess, &deals).await;
    assert_eq!(differences, Vec::<String>::new());
    let mut sorted = (over_nats, in_process);
    sorted.0.sort();
    sorted.1.sort();
    assert_eq!(sorted.0.len(), sorted.1.len(), "as many records over either bus");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_that_does_not_hold_is_reported() {
    let mut deals = read(&fixtures()).unwrap();
    deals.retain(|deal| deal.name == "honest-accepted");
    deals[0].recording.expect.outcome = "invalid".into();
    let (differences, _) = play_all(BusChoice::InProcess, &deals).await;
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(differences[0].contains("expected \"invalid\", found \"accepted\""), "{differences:?}");
}
