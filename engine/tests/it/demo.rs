use std::path::{Path, PathBuf};

use tribunal_engine::demo::{BusChoice, RecordedDeal, play, read, stage};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

/// What is not as it should be, and the number of records.
async fn play_all(bus: BusChoice, deals: &[RecordedDeal]) -> (Vec<String>, u64) {
    let folder = tempfile::tempdir().unwrap();
    let stage = stage(&fixtures(), folder.path(), Some(bus)).await.unwrap();
    let played = play(&stage, deals, |_, _| {}).await.unwrap();
    let differences = played
        .iter()
        .flat_map(|deal| deal.differences.iter().map(|difference| format!("{}: {difference}", deal.name)))
        .collect();
    let records = stage.engine.store().last_position();
    stage.engine.shutdown(std::time::Duration::from_secs(60)).await;
    (differences, records)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_deal_gives_what_it_should_and_as_many_records_over_either_bus() {
    let deals = read(&fixtures()).unwrap();
    assert!(deals.len() >= 10, "at least ten recorded deals, found {}", deals.len());
    let (differences, over_nats) = play_all(BusChoice::Nats, &deals).await;
    assert_eq!(differences, Vec::<String>::new());
    let (differences, in_process) = play_all(BusChoice::InProcess, &deals).await;
    assert_eq!(differences, Vec::<String>::new());
    // A step on the chain and a vote may be recorded in either order; how many there are does not depend on it.
    assert_eq!(over_nats, in_process);
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
