//! Lilypad v2 and CoopHive v1: this operator as one of the mediators that their deals name.
//!
//! A client that doubts a result has it checked; the contract draws a mediator. Here everything that counts comes from the
//! chain: the state, who is asked, the parties and prices, the result's CID and count. Only what is to be computed stands off
//! the chain, in the deal's document ([`deals`]), and that document must hash to the deal's id. Its module becomes a job by
//! the operator's own files ([`modules`]); the job is run again and the CID of its result folder is compared.
//!
//! *Valid* is answered with accept, *invalid* with reject, and nothing else is answered: a reject takes the provider's
//! collateral, and their contracts know no third word. What is not to be had, not known or not agreed holds the case. A result
//! that is no folder's CID of version 0 is held, too: their newest releases publish a compressed archive with times in it,
//! which nobody can compute again.
//!
//! **Count.** Their executors write an instruction count of 1 whatever was run. A count above the fuel that is metered here is
//! invalid, any other is accepted as it is: it is the price that the client agreed to.
//!
//! **Time.** Until the effective deadline a verification gets the time that is left. After it an answer still counts, until
//! one of the parties has the deal time out; so it is given, and the deal is closed when that happens.
//!
//! What is judged is a deal in a chain's history; the answer names the deal alone. Where a reorganisation deeper than the
//! confirmations gives a deal another result, an answer that is on its way is about the one before.

use alloy_primitives::keccak256;
use futures::{FutureExt as _, future::BoxFuture};
use serde_json::{Value, json};
use tribunal_contracts::{
    ChainFault, ObservedLog, RpcNode,
    lilypad::{Lilypad, LilypadEvent, Mediation},
};
use tribunal_events::{Address, B256};
use tribunal_verifiers::Cid;

use super::{Answer, Marketplace, Question, Said};
use deals::{Deal, Deals};
use modules::Modules;

pub mod deals;
pub mod modules;

/// Bytes of a deal's id that is heard at all; a CID has 46.
const ID_BYTES_MAX: usize = 128;
/// A window shorter than this is warned of, in seconds.
const WINDOW_SHORT_S: u64 = 60;

/// See the module.
pub struct LilypadMarket {
    kind: &'static str,
    contract: Lilypad,
    deals: Deals,
    modules: Modules,
}

impl LilypadMarket {
    /// The mediator of this deployment; `kind` is what the marketplace is called in journals.
    pub fn new(kind: &'static str, contract: Lilypad, deals: Deals, modules: Modules) -> Self {
        Self { kind, contract, deals, modules }
    }

    async fn read(&self, node: &RpcNode, id: &str, now_s: u64) -> Result<Result<Question, Held>, ChainFault> {
        let Ok(deal_id) = id.parse::<Cid>() else {
            return Ok(Ok(Question::Over { why: "the deal's id is no CID, so no document can be the deal's".into() }));
        };
        let it = match self.contract.mediation(node, id).await? {
            Ok(it) => it,
            // Perhaps not for long: only what has its confirmations ends a case, and that is told by events.
            Err(why) => return Ok(Err(("not-asked", why.to_string()))),
        };
        let deadlines = it.deadlines;
        let until_s = deadlines.effective_s();
        if until_s < now_s.saturating_add(WINDOW_SHORT_S) {
            let note = deadlines.note().unwrap_or_else(|| format!("the terms end at {}", deadlines.intended_s));
            tracing::warn!(
                deal_id = id,
                now_s,
                until_s,
                window_s = deadlines.window_s(),
                note,
                "the deal can be timed out before it is judged"
            );
        }
        let found = match self.deals.fetch(deal_id).await {
            Ok(text) => request(&it, &text, deal_id, &self.modules),
            Err(why) => Err(("document-missing", why)),
        };
        Ok(match found {
            Ok(request) => Ok(Question::Verify { request, until_s: Some(until_s).filter(|until_s| *until_s > now_s) }),
            Err((code, why)) => Err((code, deadlines.note().map_or(why.clone(), |note| format!("{why} ({note})")))),
        })
    }
}

/// A word and a sentence for why nothing is judged.
type Held = (&'static str, String);

/// What is to be verified.
fn request(it: &Mediation, document: &str, deal_id: Cid, modules: &Modules) -> Result<Value, Held> {
    let deal = Deal::read(document, deal_id).map_err(|why| ("document-differs", why))?;
    deal.agrees(&it.members, &it.pricing).map_err(|why| ("terms-differ", why))?;
    let job = modules.job(&deal.job_offer)?;
    if it.data_id.parse::<Cid>().is_err() {
        let shown: String = it.data_id.chars().take(80).collect();
        let why = format!(
            "the result is {shown:?}, not the CID of a result folder (version 0), and cannot be computed again"
        );
        return Err(("other-result", why));
    }
    // Nothing is metered above 2^64, so a count cut to it stays above.
    let count: u64 = it.instruction_count.saturating_to();
    Ok(json!({
        "method": { "kind": "reexecution" },
        "comparator": { "kind": "exact" },
        "job": job,
        "claim": { "folder": it.data_id, "instruction_count": count.to_string() },
    }))
}

fn case(deal_id: &str) -> B256 {
    keccak256(deal_id)
}

fn subject(deal_id: &str) -> Value {
    json!({ "deal": deal_id })
}

impl Marketplace for LilypadMarket {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn contract(&self) -> Address {
        self.contract.mediation
    }

    fn watched(&self) -> (Vec<Address>, Vec<B256>) {
        (vec![self.contract.mediation, self.contract.storage], Lilypad::events())
    }

    fn said(&self, log: &ObservedLog) -> Option<Said> {
        match self.contract.read(log)? {
            LilypadEvent::MediationRequested { deal_id, mediator } => {
                let ours = mediator == self.contract.mediator && deal_id.len() <= ID_BYTES_MAX;
                ours.then(|| Said::Asked { case: case(&deal_id), subject: subject(&deal_id) })
            }
            LilypadEvent::StateChange { deal_id, state } if state.is_final() => {
                use tribunal_contracts::lilypad::DealState::{MediationAccepted, MediationRejected};
                // Nobody but the mediator brings a deal into these two.
                let valid = match state {
                    MediationAccepted => Some(true),
                    MediationRejected => Some(false),
                    _ => None,
                };
                let case = case(&deal_id);
                Some(match valid {
                    Some(valid) => Said::Answered { case, valid },
                    None => Said::Closed { case, how: state.word().into() },
                })
            }
            LilypadEvent::StateChange { .. } | LilypadEvent::ResultAdded { .. } => None,
        }
    }

    fn question<'a>(
        &'a self,
        node: &'a RpcNode,
        subject: &'a Value,
        now_s: u64,
    ) -> BoxFuture<'a, Result<Question, ChainFault>> {
        async move {
            let Some(id) = subject["deal"].as_str() else {
                return Ok(Question::Over { why: "the journal's subject is no deal".into() });
            };
            let found = self.read(node, id, now_s).await?;
            Ok(found.unwrap_or_else(|(code, why)| Question::Nothing { code, why }))
        }
        .boxed()
    }

    fn tells_of_others(&self) -> bool {
        true
    }

    fn answer(&self, subject: &Value, valid: bool) -> Answer {
        let data = Lilypad::answer(subject["deal"].as_str().unwrap_or_default(), valid);
        Answer { to: self.contract.mediation, data: data.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Bytes, U256};
    use alloy_sol_types::{SolEvent as _, SolValue as _, sol};
    use tribunal_contracts::{BlockRef, lilypad::Deadlines};
    use tribunal_verifiers::Request;

    use super::{
        deals::tests::{document, members, pricing},
        *,
    };

    const DATA: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

    mod theirs {
        #![allow(missing_docs)]
        super::sol! {
            event MediationRequested(string dealId, address mediator);
            event DealStateChange(string dealId, uint8 state);
        }
    }

    struct World {
        market: LilypadMarket,
        folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let template = json!({
                "module": "https://example.org/m@abc/module.json",
                "job": {
                    "runtime": "wasm-1",
                    "module": format!("blake3:{}", "ab".repeat(32)),
                    "args": ["", "{{.Message}}"],
                    "outputs": ["/outputs"],
                    "limits": { "fuel": 1, "memory_bytes": 65536, "output_bytes": 1, "wall_ms": 1 },
                },
            });
            std::fs::write(folder.path().join("m.json"), template.to_string()).unwrap();
            let at = Address::repeat_byte;
            let contract = Lilypad { storage: at(1), mediation: at(2), mediator: at(3) };
            let deals = Deals::new(folder.path().to_str().unwrap()).unwrap();
            let modules = Modules::open(folder.path().into()).unwrap();
            Self { market: LilypadMarket::new("lilypad", contract, deals, modules), folder }
        }

        fn said(&self, contract: Address, topic: B256, data: Vec<u8>) -> Option<Said> {
            self.market.said(&ObservedLog {
                contract,
                topics: vec![topic],
                data: Bytes::from(data),
                block: BlockRef { number: 1, hash: B256::ZERO },
                block_time_s: 1,
                transaction: B256::ZERO,
                index: 0,
            })
        }

        fn requested(&self, deal_id: &str, mediator: Address) -> Option<Said> {
            let topic = theirs::MediationRequested::SIGNATURE_HASH;
            self.said(Address::repeat_byte(2), topic, (deal_id.to_owned(), mediator).abi_encode_params())
        }

        fn changed(&self, state: u64) -> Option<Said> {
            let topic = theirs::DealStateChange::SIGNATURE_HASH;
            self.said(Address::repeat_byte(1), topic, (DATA.to_owned(), U256::from(state)).abi_encode_params())
        }
    }

    fn mediation() -> Mediation {
        Mediation {
            members: members(),
            pricing: pricing(),
            data_id: DATA.into(),
            instruction_count: U256::from(1),
            deadlines: Deadlines { checked_s: 0, intended_s: 10, deployed_s: 10 },
        }
    }

    #[test]
    fn events_say_who_is_asked_and_how_it_ended() {
        let world = World::new();
        let (own, case) = (Address::repeat_byte(3), case(DATA));
        assert_eq!(world.requested(DATA, own), Some(Said::Asked { case, subject: json!({ "deal": DATA }) }));
        assert_eq!(world.requested(DATA, Address::repeat_byte(4)), None);
        assert_eq!(world.requested(&"x".repeat(129), own), None);
        for (state, expected) in [
            (3, Some(Said::Closed { case, how: "ResultsAccepted".into() })),
            (4, None),
            (5, Some(Said::Answered { case, valid: true })),
            (6, Some(Said::Answered { case, valid: false })),
            (10, Some(Said::Closed { case, how: "TimeoutMediateResults".into() })),
            (11, None),
            (256, None),
        ] {
            assert_eq!(world.changed(state), expected, "{state}");
        }
        let subject = json!({ "deal": DATA });
        for valid in [true, false] {
            let answer = world.market.answer(&subject, valid);
            assert_eq!(answer, Answer { to: Address::repeat_byte(2), data: Lilypad::answer(DATA, valid).to_vec() });
        }
    }

    #[test]
    fn a_deal_becomes_a_request_with_the_chains_claim() {
        let world = World::new();
        let (id, text) = document(&[]);
        let made = |it: &Mediation| request(it, &text, id, &world.market.modules);
        let made_now = made(&mediation()).unwrap();
        let parsed = Request::parse(&made_now.to_string()).unwrap();
        let claim = parsed.claim.unwrap();
        assert_eq!((claim.folder.unwrap().to_string().as_str(), claim.instruction_count), (DATA, Some(1)));
        assert_eq!(parsed.job.unwrap().args, ["", "hi < \"you\""]);
        let many = Mediation { instruction_count: U256::MAX, ..mediation() };
        let parsed = Request::parse(&made(&many).unwrap().to_string()).unwrap();
        assert_eq!(parsed.claim.unwrap().instruction_count, Some(u64::MAX));
        for other in ["", "rubbish", "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"] {
            let (code, why) = made(&Mediation { data_id: other.into(), ..mediation() }).unwrap_err();
            assert!(code == "other-result" && why.contains(other), "{why}");
        }
        let mut elsewhere = members();
        elsewhere.resourceProvider = Address::ZERO;
        assert_eq!(made(&Mediation { members: elsewhere, ..mediation() }).unwrap_err().0, "terms-differ");
        let mut dearer = pricing();
        dearer.mediationFee += U256::from(1);
        assert_eq!(made(&Mediation { pricing: dearer, ..mediation() }).unwrap_err().0, "terms-differ");
        let other = request(&mediation(), &text, Cid::of_data(b""), &world.market.modules);
        assert_eq!(other.unwrap_err().0, "document-differs");
        std::fs::remove_file(world.folder.path().join("m.json")).unwrap();
        assert_eq!(made(&mediation()).unwrap_err().0, "module-unknown");
    }
}
