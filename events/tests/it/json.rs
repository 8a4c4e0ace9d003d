use expect_test::expect;
use tribunal_events::{Envelope, Party, json, proto};
use tribunal_fixtures::RecordedDeal;

use crate::{claim, script, terms};

#[test]
fn an_envelope_comes_back_from_json_as_it_was() {
    let script = script();
    for envelope in [script.proposed(Party::Client), script.result_submitted(claim()), script.accepted()] {
        let text = json::to_value("Envelope", &envelope.message()).to_string();
        assert_eq!(Envelope::decode(text.as_bytes()).as_ref(), Ok(&envelope));
        assert_eq!(Envelope::decode(&envelope.encode()).as_ref(), Ok(&envelope));
    }
}

#[test]
fn events_are_written_as_proto3_json_with_the_schemas_names() {
    use prost::Message;
    let envelope = script().result_submitted(claim());
    let event = proto::Event::decode(envelope.event()).expect("an event");
    let value = json::to_value("Event", &event);
    let written = serde_json::to_string_pretty(&value).expect("JSON");
    expect![[r#"
        {
          "deal_id": "Myh3DyvkcHRUMkcUV//dGfeT8r+CCeAW9nVefheShO0=",
          "result_submitted": {
            "claim": {
              "exit_code": -1,
              "instruction_count": "1152921504606846976",
              "outputs": [
                {
                  "artifact": "sha256:0505050505050505050505050505050505050505050505050505050505050505",
                  "path": "/out/b"
                }
              ],
              "stdout": "sha256:0404040404040404040404040404040404040404040404040404040404040404"
            },
            "move_signature": "CSGzGfnIfXsdvXOF4jkpRirNc0MxGY69vox5rMbrtuEFFrLm7hIYrd8z6q6Zl0KOoPNxRwyv9hpFrCfWUUVSERw="
          },
          "schema_version": 1,
          "sender": "WFiOuzUIU9O+pVTkyi1a52DWXwM="
        }"#]]
    .assert_eq(&written);
    assert_eq!(json::from_str::<proto::Event>("Event", &written), Ok(event));
}

#[test]
fn terms_come_back_from_json_as_they_were() {
    let message = terms().message().clone();
    let written = json::to_value("Terms", &message).to_string();
    assert_eq!(json::from_str::<proto::Terms>("Terms", &written), Ok(message));
}

#[test]
fn both_spellings_of_a_field_are_read() {
    let read = |text: &str| json::from_str::<proto::Limits>("Limits", text);
    let expected = proto::Limits { memory_bytes: 9, ..Default::default() };
    assert_eq!(read(r#"{"memory_bytes": "9"}"#), Ok(expected));
    assert_eq!(read(r#"{"memoryBytes": 9}"#), Ok(expected));
}

#[test]
fn unknown_fields_and_trailing_text_are_errors() {
    let read = |text: &str| json::from_str::<proto::Limits>("Limits", text);
    assert!(read(r#"{"fuel": "1", "gas": "1"}"#).is_err());
    assert!(read(r#"{"fuel": "1"} x"#).is_err());
    assert!(read(r#"{"fuel": "#).is_err());
    assert!(read(r#"{"fuel": "-1"}"#).is_err());
    assert!(read(r#"{"fuel": "18446744073709551616"}"#).is_err());
    let envelope = json::to_value("Envelope", &script().accepted().message()).to_string();
    let extended = envelope.replacen('{', r#"{"sender": "me", "#, 1);
    assert_eq!(Envelope::decode(extended.as_bytes()).expect_err("unknown field").code(), "malformed");
}

#[test]
fn json_cut_off_anywhere_is_refused() {
    let text = json::to_value("Envelope", &script().accepted().message()).to_string();
    for length in 0..text.len() {
        let taken = Envelope::decode(&text.as_bytes()[..length]).and_then(Envelope::parse);
        assert!(taken.is_err(), "{length} of {}", text.len());
    }
}

#[test]
fn recorded_events_are_canonical() {
    for name in RecordedDeal::names().expect("fixtures/deals") {
        let text = std::fs::read_to_string(RecordedDeal::folder(&name).join("events.jsonl")).expect("events.jsonl");
        for line in text.lines() {
            let envelope = Envelope::decode(line.as_bytes()).expect("an envelope");
            assert_eq!(json::to_value("Envelope", &envelope.message()).to_string(), line, "{name}");
        }
    }
}
