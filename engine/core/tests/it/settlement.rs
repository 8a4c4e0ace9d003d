//! Who is paid what: against PROTOCOL's table in signed numbers, and against the vectors shared with Solidity.

use proptest::prelude::*;
use serde_json::Value;
use tribunal_core::Settlement;
use tribunal_events::{Address, Outcome, Role, proto};
use tribunal_fixtures::{
    TermsBuilder,
    money::{Money, Net},
};

const OUTCOMES: [Outcome; 9] = [
    Outcome::Accepted,
    Outcome::Valid,
    Outcome::Invalid,
    Outcome::Inconclusive,
    Outcome::AgreeTimeout,
    Outcome::SubmitTimeout,
    Outcome::JudgeTimeout,
    Outcome::MediateTimeout,
    Outcome::Withdrawn,
];

fn voters(count: usize) -> Vec<Address> {
    (1..=count).map(|index| Address::repeat_byte(index as u8)).collect()
}

fn net(settlement: &Settlement) -> Net {
    let number = |amount: tribunal_events::Amount| amount.to_string().parse::<i128>().expect("below 2^127");
    let of = |role: Role| {
        let payouts = settlement.payouts().iter().filter(|it| it.role == role);
        payouts.map(|it| number(it.paid) - number(it.locked)).sum()
    };
    Net {
        client: of(Role::Client),
        provider: of(Role::Provider),
        mediators: of(Role::Mediator),
        treasury: of(Role::Treasury),
    }
}

#[test]
fn every_shared_vector_holds() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/vectors/settlement.json");
    let text = std::fs::read_to_string(path).expect("contracts/vectors/settlement.json");
    let vectors: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert!(vectors.len() >= 40, "only {} vectors", vectors.len());
    for vector in &vectors {
        let field = |name: &str| vector[name].as_str().unwrap_or_else(|| panic!("{name} is text")).to_owned();
        let number = |name: &str| field(name).parse::<u64>().expect("a number");
        let terms = TermsBuilder::new("vectors").edit(|terms| {
            use proto::pricing::Kind;
            let pricing = terms.pricing.as_mut().expect("set");
            pricing.kind = Some(match number("pricing") {
                1 => Kind::Fixed(proto::FixedPrice { price: field("price") }),
                _ => Kind::Metered(proto::MeteredPrice { instruction_price: field("price") }),
            });
            pricing.payment_collateral = field("paymentCollateral");
            pricing.results_collateral = field("resultsCollateral");
            pricing.mediation_fee = field("mediationFee");
            let timeouts = terms.timeouts.as_mut().expect("set");
            timeouts.submit_collateral = field("submitCollateral");
            timeouts.judge_collateral = field("judgeCollateral");
            let (fee_bps, victim_bps) = (number("feeBps") as u32, number("victimBps") as u32);
            terms.fee = Some(proto::Fee { fee_bps, public_good: false, victim_bps });
        });
        let outcome = Outcome::try_from(number("outcome") as i32).expect("an outcome");
        let terms = terms.build();
        let voters = voters(number("voters") as usize);
        let settlement = Settlement::new(&terms, outcome, number("count"), &voters, true);
        let signed = |role: Role| -> String {
            use tribunal_events::U256;
            let of = settlement.payouts().iter().filter(|it| it.role == role);
            let (locked, paid) = of.fold((U256::ZERO, U256::ZERO), |(locked, paid), it| {
                (locked + it.locked.base_units(), paid + it.paid.base_units())
            });
            if paid >= locked { (paid - locked).to_string() } else { format!("-{}", locked - paid) }
        };
        let expect = |name: &str| vector["expect"][name].as_str().expect("text").to_owned();
        assert_eq!(signed(Role::Client), expect("client_net"), "client of {vector}");
        assert_eq!(signed(Role::Provider), expect("provider_net"), "provider of {vector}");
        assert_eq!(signed(Role::Mediator), expect("mediators"), "mediators of {vector}");
        assert_eq!(signed(Role::Treasury), expect("treasury"), "treasury of {vector}");
    }
}

#[test]
fn where_nothing_was_locked_nothing_is_paid() {
    let terms = TermsBuilder::new("unfunded").build();
    for outcome in OUTCOMES {
        assert_eq!(net(&Settlement::new(&terms, outcome, 7, &voters(3), false)), Net::default());
    }
}

#[test]
fn a_price_beyond_all_numbers_is_the_payment_collateral() {
    let terms = TermsBuilder::new("beyond").edit(|terms| {
        let pricing = terms.pricing.as_mut().expect("set");
        let instruction_price = (tribunal_events::U256::from(1u64) << 191usize).to_string();
        pricing.kind = Some(proto::pricing::Kind::Metered(proto::MeteredPrice { instruction_price }));
    });
    let settlement = Settlement::new(&terms.build(), Outcome::Accepted, u64::MAX, &[], true);
    assert_eq!(net(&settlement).client, -1_200_000);
}

proptest! {
    #[test]
    fn money_is_conserved_and_paid_as_the_table_says(
        (metered, price, spare, c, f) in (any::<bool>(), 0u64..1 << 40, 0u64..1 << 40, 0u64..1 << 50, 0u64..1 << 40),
        (s, j, fee_bps, victim_bps, public_good) in (0u64..1 << 40, 0u64..1 << 40, 0u32..=10_000, 0u32..=10_000, any::<bool>()),
        (count, voter_count, outcome) in (any::<u64>(), 0usize..=31, 0usize..9),
    ) {
        let builder = if metered {
            TermsBuilder::new("table").metered(price, spare)
        } else {
            TermsBuilder::new("table").edit(|terms| {
                terms.pricing.as_mut().expect("set").payment_collateral = (price + spare).to_string();
            }).fixed(price)
        };
        let builder = builder.edit(|terms| {
            let pricing = terms.pricing.as_mut().expect("set");
            (pricing.results_collateral, pricing.mediation_fee) = (c.to_string(), f.to_string());
            let timeouts = terms.timeouts.as_mut().expect("set");
            (timeouts.submit_collateral, timeouts.judge_collateral) = (s.to_string(), j.to_string());
            terms.fee = Some(proto::Fee { fee_bps, public_good, victim_bps });
        });
        let settlement = Settlement::new(&builder.build(), OUTCOMES[outcome], count, &voters(voter_count), true);
        let expected = Money::of(builder.message()).net(OUTCOMES[outcome], count, voter_count);
        prop_assert_eq!(settlement.locked(), settlement.paid());
        prop_assert_eq!(expected.sum(), 0);
        prop_assert_eq!(net(&settlement), expected);
    }
}
