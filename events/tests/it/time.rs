use tribunal_events::Timestamp;

#[test]
fn a_moment_is_written_in_utc_to_the_microsecond() {
    let cases = [
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_399_999_999, "2000-02-28T23:59:59.999999Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
        (1_772_355_600_000_001, "2026-03-01T09:00:00.000001Z"),
        (253_402_300_799_000_000, "9999-12-31T23:59:59.000000Z"),
    ];
    for (us, text) in cases {
        assert_eq!(Timestamp::from_us(us).to_string(), text);
    }
}

#[test]
fn deadlines_are_the_last_microsecond_of_a_whole_second() {
    let at = Timestamp::from_us(5_999_999);
    assert_eq!(at.deadline_after_s(10), Timestamp::from_us(15_999_999));
    assert_eq!(Timestamp::from_us(5_000_000).deadline_after_s(10), Timestamp::from_us(15_999_999));
    assert_eq!(Timestamp::from_us(u64::MAX).deadline_after_s(u64::MAX), Timestamp::from_us(u64::MAX));
}
