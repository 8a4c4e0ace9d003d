//! What a replayed deal shows of its marketplace's known defects: where money was stranded, and how a cheat got away.
//!
//! A note is no contradiction: the chain did what its contracts do. It says what that did to whom, with the figures.
//!
//! | code | what |
//! |---|---|
//! | `stranded` | money of the deal is in escrow, and no call can move it any more |
//! | `hostage` | the time of a party is over, and the timeout that should free the other's money reverts as deployed |
//! | `unclaimed` | money that a call could free, which nobody made |
//! | `borrowed` | a refund gave more than the deal held: it came out of the account's other deals |
//! | `cheat-escapes` | the provider took its collateral back by the mediate timeout: nobody judged the result |
//! | `escape-open` | the same is possible, and has not happened |
//! | `mediation-cut-short` | the mediate timeout runs by the judge timeout, from the result on: the mediator had less than agreed |
//! | `mediator-silent` | the mediator did not answer in the time that was agreed, which costs it nothing |
//! | `guilt-or-fault` | a rejection, which is also what a mediator posts whose own run failed |
//! | `victim-unpaid` | what the provider lost went to the owner of the token, and the client paid the mediator |
//! | `late-result`, `late-judgement`, `late-verdict` | accepted though its time was over |
//! | `unpaid-work` | the provider was paid less than its count cost |
//! | `nothing-at-stake` | the provider's count made its collateral nothing |
//! | `drawn-by-time` | one of several mediators was drawn by the block's time, which who sends the transaction can choose |
//! | `other-draw` | not the mediator that the block's time gives: another mediation contract, or logs that are not the chain's |
//! | `not-as-deployed` | a timeout that reverts in every deployment known: another version of the contracts |
//! | `unread` | figures that were not imported, so that payments could not be compared with the rule |

use alloy_primitives::keccak256;
use tribunal_contracts::lilypad::{DealState, history::Agreed};
use tribunal_events::{Address, U256};

use super::{
    chronicle::Chronicle,
    replay::Replay,
    rule::{Money, Side, tokens},
};

/// Something worth knowing about a deal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Log position of the record that it is about.
    pub position: u64,
    /// Stable code, see the module.
    pub code: &'static str,
    /// One or two sentences.
    pub text: String,
}

/// The last second at which a timeout call is still refused; nothing for other states, or where the times are not known.
pub fn opens(replay: &Replay, agreed: Option<&Agreed>, timeout: DealState) -> Option<u64> {
    let agreed = agreed?;
    let entered = |state| replay.when(state).and_then(|step| step.time_s);
    let (since, seconds) = match timeout {
        DealState::TimeoutAgree => (replay.first.and_then(|(_, at)| at)?, agreed.agree_timeout),
        DealState::TimeoutSubmitResults => (entered(DealState::DealAgreed)?, agreed.submit_timeout),
        // Both by the judge timeout, as deployed.
        DealState::TimeoutJudgeResults | DealState::TimeoutMediateResults => {
            (entered(DealState::ResultsSubmitted)?, agreed.judge_timeout)
        }
        _ => return None,
    };
    Some(after(since, seconds))
}

fn after(since: u64, seconds: U256) -> u64 {
    since.saturating_add(seconds.saturating_to())
}

/// Everything that a replay shows; `now_s` is when the deal was imported.
pub fn explain(chronicle: &Chronicle, replay: &Replay, now_s: u64) -> Vec<Explained> {
    let mut this = Explanation { chronicle, replay, now_s, notes: Vec::new() };
    this.unread();
    if let Some(agreed) = &chronicle.agreed {
        this.times(agreed);
        this.draw(agreed);
        this.figures(agreed);
    }
    this.verdict();
    this.timeouts();
    for (account, amount, position) in &replay.borrowed {
        let who = this.who(*account);
        let text = format!(
            "{} more went back to {who} than this deal held for it: the timeout refunds the submit collateral whoever calls \
             it, and the rest came out of the escrow of the account's other deals",
            tokens(*amount)
        );
        this.note(*position, "borrowed", text);
    }
    this.held();
    this.notes
}

struct Explanation<'a> {
    chronicle: &'a Chronicle,
    replay: &'a Replay,
    now_s: u64,
    notes: Vec<Explained>,
}

impl Explanation<'_> {
    fn note(&mut self, position: u64, code: &'static str, text: String) {
        self.notes.push(Explained { position, code, text });
    }

    fn who(&self, account: Address) -> String {
        let role = match account {
            it if Some(it) == self.replay.client => "the client",
            it if Some(it) == self.replay.provider => "the provider",
            it if self.replay.mediator.is_some_and(|(mediator, ..)| it == mediator) => "the mediator",
            _ => "account",
        };
        format!("{role} {account:#x}")
    }

    fn money(&self) -> Option<Money<'_>> {
        Money::new(self.chronicle.agreed.as_ref()?, self.replay.instruction_count?)
    }

    fn at(&self, state: DealState) -> Option<(u64, Option<u64>)> {
        self.replay.when(state).map(|step| (step.position, step.time_s))
    }

    fn unread(&mut self) {
        let position = self.replay.position;
        if self.chronicle.agreed.is_none() {
            let text =
                "what was agreed (getDeal) was not imported: payments, parties and times are not compared with it";
            self.note(position, "unread", text.into());
        } else if self.replay.when(DealState::ResultsSubmitted).is_some() && self.replay.instruction_count.is_none() {
            let text = "what the provider gave (getResult) was not imported: payments are not compared with its count";
            self.note(position, "unread", text.into());
        }
        if let Some(it) = self.chronicle.heard.iter().find(|it| it.time_s.is_none()) {
            let text = "the times of some blocks were not imported: deadlines are checked only where they are known";
            self.note(it.position, "unread", text.into());
        }
        if let (Some((position, _)), None) = (self.at(DealState::ResultsChecked), self.replay.mediator) {
            let text = "the mediation contract was not imported: who was asked to mediate is not known";
            self.note(position, "unread", text.into());
        }
    }

    /// What came after its time.
    fn times(&mut self, agreed: &Agreed) {
        let submitted = self.at(DealState::ResultsSubmitted).and_then(|(position, at)| Some((position, at?)));
        if let (Some((_, Some(agreed_at))), Some((position, at))) = (self.at(DealState::DealAgreed), submitted) {
            let deadline = after(agreed_at, agreed.submit_timeout);
            if at > deadline {
                let text = format!(
                    "the result came {} s after its time was over and was taken like one in time: the contract looks at no \
                     deadline, and the provider got its {} of timeout collateral back",
                    at - deadline,
                    tokens(agreed.submit_collateral)
                );
                self.note(position, "late-result", text);
            }
        }
        let Some((_, submitted_at)) = submitted else { return };
        let judge_by = after(submitted_at, agreed.judge_timeout);
        for state in [DealState::ResultsAccepted, DealState::ResultsChecked] {
            if let Some((position, Some(at))) = self.at(state)
                && at > judge_by
            {
                let text = format!(
                    "the client judged {} s after its time was over and lost nothing: the judge timeout reverts as deployed",
                    at - judge_by
                );
                self.note(position, "late-judgement", text);
            }
        }
        let Some((checked, Some(checked_at))) = self.at(DealState::ResultsChecked) else { return };
        let mediate_by = after(checked_at, agreed.mediate_timeout);
        if judge_by < mediate_by {
            let text = format!(
                "the terms give the mediator {} s from the check on; the contract measures the judge timeout from the result \
                 on, so that either party could end the mediation after {} s",
                mediate_by - checked_at,
                judge_by.saturating_sub(checked_at)
            );
            self.note(checked, "mediation-cut-short", text);
        }
        for state in [DealState::MediationAccepted, DealState::MediationRejected] {
            if let Some((position, Some(at))) = self.at(state)
                && at > mediate_by
            {
                let text = format!(
                    "the mediator answered {} s after its time was over, and its word decided: nobody had made the timeout call",
                    at - mediate_by
                );
                self.note(position, "late-verdict", text);
            }
        }
    }

    fn draw(&mut self, agreed: &Agreed) {
        let Some((mediator, position, at)) = self.replay.mediator else { return };
        let count = agreed.mediators.len();
        if count < 2 {
            return;
        }
        let text = format!(
            "one of {count} mediators was drawn by keccak256 of the block's time and the deal's id: whoever chooses the block \
             chooses the mediator"
        );
        self.note(position, "drawn-by-time", text);
        let (Some(at), Some(first)) = (at, &self.chronicle.first) else { return };
        let seed = [&U256::from(at).to_be_bytes::<32>()[..], first.foreign_id.as_bytes()].concat();
        let index = U256::from_be_bytes(keccak256(seed).0) % U256::from(count);
        let drawn = agreed.mediators.get(index.saturating_to::<usize>()).copied();
        if drawn.is_some_and(|drawn| drawn != mediator) {
            let text = format!(
                "the time of the block gives {:#x}, the mediation contract says {mediator:#x}: it draws in another way than \
                 the one known",
                drawn.unwrap_or_default()
            );
            self.note(position, "other-draw", text);
        }
    }

    fn figures(&mut self, agreed: &Agreed) {
        let Some((position, _)) = self.at(DealState::ResultsSubmitted) else { return };
        let Some(count) = self.replay.instruction_count else { return };
        let Some(Money { cost, results_collateral, .. }) = Money::new(agreed, count) else { return };
        if results_collateral.is_zero() {
            let text = format!(
                "the provider says its own count of instructions, here {count}: with it its results collateral is nothing, and \
                 no verdict could cost it anything"
            );
            self.note(position, "nothing-at-stake", text);
        }
        let paid = [DealState::ResultsAccepted, DealState::MediationAccepted];
        let paid = paid.into_iter().find_map(|state| self.at(state));
        if let Some((position, _)) = paid
            && cost > agreed.payment_collateral
        {
            let text = format!(
                "{count} instructions cost {}, the provider was paid {}: the payment collateral is all there is",
                tokens(cost),
                tokens(agreed.payment_collateral)
            );
            self.note(position, "unpaid-work", text);
        }
    }

    fn verdict(&mut self) {
        let Some((position, _)) = self.at(DealState::MediationRejected) else { return };
        self.note(
            position,
            "guilt-or-fault",
            "the mediator rejected the result. Nothing on the chain says what it computed: a mediator whose own run failed \
             posts the same, and the contracts know no third answer"
                .into(),
        );
        let lost = self.replay.ledger.slashed;
        let fee = self.chronicle.agreed.as_ref().map(|it| it.mediation_fee);
        let fee = fee.map_or_else(String::new, |fee| format!(", and paid the mediator {}", tokens(fee)));
        let text = format!(
            "the provider lost {} to the owner of the token; the client, whose job was not done, got nothing of it{fee}",
            tokens(lost)
        );
        self.note(position, "victim-unpaid", text);
    }

    fn timeouts(&mut self) {
        let collateral = self.money().map(|money| tokens(money.results_collateral));
        let collateral = collateral.unwrap_or_else(|| "its results collateral".into());
        if let Some((position, at)) = self.at(DealState::TimeoutMediateResults) {
            let checked = self.at(DealState::ResultsChecked).and_then(|(_, at)| at);
            let agreed = self.chronicle.agreed.as_ref();
            let window = at.zip(checked).zip(agreed).map(|((at, checked), agreed)| {
                (at.saturating_sub(checked), agreed.mediate_timeout.saturating_to::<u64>())
            });
            let when = match window {
                Some((had, given)) if had <= given => {
                    format!(" {had} s after the check, though the terms gave the mediator {given} s")
                }
                Some((had, given)) => {
                    format!(" {had} s after the check; the mediator had not answered in its {given} s")
                }
                None => String::new(),
            };
            let text = format!(
                "the mediation was timed out{when}. Nobody judged the result: a provider that cheated has {collateral} back \
                 and loses nothing, the client has its payment and no work"
            );
            self.note(position, "cheat-escapes", text);
            if let Some((had, given)) = window
                && had > given
            {
                let text = format!("the mediator said nothing in the {given} s of the terms, which cost it nothing");
                self.note(position, "mediator-silent", text);
            }
        }
        for (state, call) in [
            (DealState::TimeoutSubmitResults, "timeoutSubmitResult"),
            (DealState::TimeoutJudgeResults, "timeoutJudgeResult"),
        ] {
            if let Some((position, _)) = self.at(state) {
                let text = format!(
                    "the controllers known call {call} of the payments, which have no such function, so that the call \
                     reverts; here it did not: these contracts are another version"
                );
                self.note(position, "not-as-deployed", text);
            }
        }
    }

    /// Money that is still there, and why.
    fn held(&mut self) {
        let held = self.replay.ledger.held();
        if held.is_empty() || self.replay.client.is_none() {
            return;
        }
        let state = self.replay.state;
        let position = self.replay.steps.last().map_or(self.replay.position, |step| step.position);
        let list = held.iter().map(|(account, amount)| format!("{} of {}", tokens(*amount), self.who(*account)));
        let list = list.collect::<Vec<_>>().join(", ");
        let agreed = self.chronicle.agreed.as_ref();
        if state.is_final() {
            let why = match state {
                DealState::TimeoutJudgeResults => {
                    let meant = self.money().map_or_else(String::new, |money| {
                        let rest = money.agreed.payment_collateral.saturating_sub(money.paid());
                        format!(
                            ": meant was {} to the provider and {} back to the client",
                            tokens(money.paid()),
                            tokens(rest)
                        )
                    });
                    format!("the judge timeout pays nobody for the work and refunds no payment collateral{meant}")
                }
                DealState::TimeoutAgree | DealState::TimeoutSubmitResults => {
                    "the timeout refunds the submit collateral to a client that paid in the judge collateral".into()
                }
                _ => "the payments that this state calls for do not give it back".into(),
            };
            let text = format!("{list} stays in escrow for ever: {} is final, and {why}", state.word());
            return self.note(position, "stranded", text);
        }
        let timeout = match state {
            DealState::DealNegotiating => DealState::TimeoutAgree,
            DealState::DealAgreed => DealState::TimeoutSubmitResults,
            DealState::ResultsSubmitted => DealState::TimeoutJudgeResults,
            _ => DealState::TimeoutMediateResults,
        };
        let Some(opens) = opens(self.replay, agreed, timeout).filter(|opens| self.now_s > *opens) else { return };
        let since = format!("when this was imported, {} s after the time was over", self.now_s - opens);
        match state {
            DealState::DealAgreed => {
                let text = format!(
                    "{list} was in escrow {since}: the provider gave no result, and timeoutSubmitResult reverts as deployed, \
                     so that only a late result of the provider itself frees anything"
                );
                self.note(position, "hostage", text);
            }
            DealState::ResultsSubmitted => {
                let text = format!(
                    "{list} was in escrow {since}: the client did not judge, and timeoutJudgeResult reverts as deployed, so \
                     that only the client itself frees the provider's collateral"
                );
                self.note(position, "hostage", text);
            }
            DealState::DealNegotiating => {
                let side = match self.replay.first {
                    Some((Side::Client, _)) => "the client",
                    Some((Side::Provider, _)) => "the provider",
                    None => "one side",
                };
                let text = format!(
                    "{list} was in escrow {since}: only {side} agreed, and has not called timeoutAgree to get it back"
                );
                self.note(position, "unclaimed", text);
            }
            _ => {
                let text = format!(
                    "{list} was in escrow {since}: the mediator has not answered, and nobody has called timeoutMediateResult"
                );
                self.note(position, "unclaimed", text);
                let text = "the provider can call timeoutMediateResult at any moment and has its results collateral back, \
                            whatever it gave";
                self.note(position, "escape-open", text.into());
            }
        }
    }
}
