use proptest::prelude::*;
use tribunal_events::{Amount, Bps, U256};

fn parse(text: &str) -> Option<Amount> {
    text.parse().ok()
}

#[test]
fn an_amount_is_a_plain_decimal_number_below_two_to_the_256() {
    assert_eq!(parse("0"), Some(Amount::ZERO));
    assert_eq!(parse("1000000"), Some(Amount::from(1_000_000)));
    let most = U256::MAX.to_string();
    assert_eq!(parse(&most), Some(Amount::new(U256::MAX)));
    let beyond = format!("{}6", &most[..most.len() - 1]);
    for wrong in
        ["", " 1", "1 ", "+1", "-1", "01", "00", "1.0", "1e3", "0x1", "1_000", "١", "ten", &beyond, &"9".repeat(79)]
    {
        assert_eq!(parse(wrong), None, "{wrong:?}");
    }
}

#[test]
fn sums_beyond_the_end_are_no_sums() {
    let (most, one) = (Amount::new(U256::MAX), Amount::from(1));
    assert_eq!(most.checked_add(one), None);
    assert_eq!(Amount::ZERO.checked_sub(one), None);
    assert_eq!(most.checked_mul(2), None);
    assert_eq!(most.checked_mul(1), Some(most));
}

#[test]
fn a_share_has_at_most_ten_thousand_parts() {
    assert_eq!(Bps::new(10_001), None);
    assert_eq!(Bps::new(65_536 + 5), None, "nothing is cut off");
    let whole = Bps::new(10_000).expect("all");
    assert_eq!(Amount::new(U256::MAX).share(whole), Amount::new(U256::MAX));
}

proptest! {
    #[test]
    fn what_is_written_is_read(words in any::<[u64; 4]>()) {
        let amount = Amount::new(U256::from_limbs(words));
        prop_assert_eq!(parse(&amount.to_string()), Some(amount));
    }

    #[test]
    fn a_share_is_rounded_down_exactly(number in any::<u64>(), bps in 0u32..=10_000) {
        let share = Amount::from(number).share(Bps::new(bps).expect("in range"));
        let exact = u128::from(number) * u128::from(bps) / 10_000;
        prop_assert_eq!(share.to_string(), exact.to_string());
    }

    #[test]
    fn parts_never_exceed_the_whole(number in any::<u64>(), parts in 1u64..40) {
        let each = Amount::from(number).split(parts);
        prop_assert!(each.checked_mul(parts).is_some_and(|all| all <= Amount::from(number)));
    }
}
