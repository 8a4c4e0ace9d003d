use std::collections::BTreeMap;

use expect_test::expect;
use proptest::prelude::*;
use tribunal_events::{Address, B256, Digest};
use tribunal_mediators::{candidates, draw, draw_seed};

fn accounts(count: u8) -> Vec<Address> {
    (1..=count).map(Address::repeat_byte).collect()
}

fn seed(number: u32) -> Digest {
    draw_seed(&[1; 32], &[2; 32], B256::repeat_byte(3), number)
}

#[test]
fn anyone_can_draw_the_same_panel_again_years_later() {
    let seed = draw_seed(&[0x11; 32], &[0x22; 32], B256::repeat_byte(0x33), 1);
    expect!["0xe309dc067aa2f560a26756504d44675c4a7f1dcdcfc4a9786dafae52d80c4b4c"].assert_eq(&seed.to_string());
    let panel = draw(&seed, &accounts(9), 4);
    let panel: Vec<_> = panel.iter().map(|account| account.0[0]).collect();
    expect!["[1, 2, 5, 9]"].assert_eq(&format!("{panel:?}"));
}

#[test]
fn every_part_of_a_seed_counts() {
    let (client, provider, terms) = ([1; 32], [2; 32], B256::repeat_byte(3));
    let seed = draw_seed(&client, &provider, terms, 0);
    let others = [
        draw_seed(&[9; 32], &provider, terms, 0),
        draw_seed(&client, &[9; 32], terms, 0),
        draw_seed(&client, &provider, B256::repeat_byte(9), 0),
        draw_seed(&client, &provider, terms, 1),
        draw_seed(&provider, &client, terms, 0),
    ];
    assert!(others.iter().all(|other| *other != seed));
}

#[test]
fn every_panel_is_drawn_about_equally_often() {
    // 10 panels of 3 out of 5 from 20,000 seeds: 2000 each, standard deviation 42; six of them is a generous bound.
    let mut counts = BTreeMap::new();
    for number in 0..20_000 {
        *counts.entry(draw(&seed(number), &accounts(5), 3)).or_insert(0u32) += 1;
    }
    assert_eq!(counts.len(), 10);
    assert!(counts.values().all(|count| count.abs_diff(2000) < 255), "{counts:?}");
}

#[test]
fn every_mediator_is_drawn_about_equally_often_where_words_do_not_divide_evenly() {
    let mut counts = BTreeMap::new();
    for number in 0..21_000 {
        *counts.entry(draw(&seed(number), &accounts(7), 1)[0]).or_insert(0u32) += 1;
    }
    assert!(counts.values().all(|count| count.abs_diff(3000) < 310), "{counts:?}");
}

#[test]
fn rounds_draw_independently() {
    // Whether a mediator sits in round 0 tells nothing about round 1: both in 4 of 9 cases.
    let (mut both, count) = (0u32, 9_000);
    for number in 0..count {
        let drawn = |round| {
            let seed = draw_seed(&[7; 32], &[8; 32], B256::from(tribunal_events::U256::from(number)), round);
            draw(&seed, &accounts(3), 2).contains(&Address::repeat_byte(1))
        };
        both += u32::from(drawn(0) && drawn(1));
    }
    assert!(both.abs_diff(4_000) < 300, "{both}");
}

#[test]
fn who_was_silent_is_not_drawn_again_while_others_are_left() {
    let all = accounts(5);
    assert_eq!(candidates(&all, &all[..2], 3), all[2..]);
    assert_eq!(candidates(&all, &all[..3], 3), all, "too few would remain");
    assert_eq!(candidates(&all, &[], 3), all);
}

proptest! {
    #[test]
    fn a_panel_is_a_set_of_candidates_in_order_and_does_not_depend_on_theirs(
        bytes in any::<[u8; 32]>(),
        count in 1u8..=31,
        size in 1usize..=31,
        rotated in 0usize..31,
    ) {
        let size = size.min(usize::from(count));
        let (mut all, seed) = (accounts(count), Digest::new(bytes));
        let panel = draw(&seed, &all, size);
        prop_assert_eq!(panel.len(), size);
        prop_assert!(panel.is_sorted_by(|a, b| a < b));
        prop_assert!(panel.iter().all(|member| all.contains(member)));
        all.rotate_left(rotated % usize::from(count));
        prop_assert_eq!(draw(&seed, &all, size), panel);
    }
}
