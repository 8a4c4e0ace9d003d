//! Money and record of mediators: what they were asked, what they said, what that earned and cost. A fold of the log.
//!
//! [`Accounts::catch_up`] reads the log on from where it stands, so that a page or a scrape costs what happened since the last
//! one. [`Accounts::record`] gives a mediator's sums, [`Accounts::cases`] a line a case, [`csv`] the same as RFC 4180.
//!
//! A *case* is a place on a panel: one deal, one round. Its [`Standing`] compares the vote with the outcome of the deal. The
//! score is iExec's (PoCo, `IexecPoco2Facet.sol`): one more when right, two thirds (rounded down) when wrong; silence counts as
//! wrong, inconclusive as nothing. The streak counts right votes since the last wrong or silent one, as BOINC does. Both follow the
//! log's order of decisions, and both are for readers: no rule looks at them.
//!
//! **Invariant:** everything but gas is a function of the log up to [`Accounts::position`]. Gas is known for steps that this engine
//! took; it is kept beside the log when the step is recorded, and the chain tells it again.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use serde::{Deserialize, Serialize};
use tribunal_core::{ChainReport, REORGANISED};
use tribunal_events::{
    Address, Amount, B256, DealId, Digest, EventKind, Outcome, Protocol, Role, Terms, Timestamp, VerdictKind,
    VerdictVote,
};

use crate::{
    moment,
    replay::ReplayFault,
    store::{Projection, Record, Store, StoreFault},
};

/// Days of earnings in an answer at most, the latest.
const DAYS_MAX: usize = 400;

/// Gas of a step, as kept under `gas/<effect id>` among the projections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gas {
    /// The deal.
    pub deal_id: DealId,
    /// The step's name.
    pub step: String,
    /// The transaction.
    pub transaction: B256,
    /// What it took.
    pub gas_used: u64,
}

fn gas_key(effect_id: &Digest) -> Vec<u8> {
    format!("gas/{effect_id}").into_bytes()
}

/// The row that keeps a step's gas; nothing where none was used.
pub fn gas_row(deal_id: DealId, report: &ChainReport, gas_used: u64) -> Option<Projection> {
    let gas = Gas { deal_id, step: report.step.clone(), transaction: report.transaction, gas_used };
    let value = serde_json::to_vec(&gas).expect("gas has a JSON form");
    let key = gas_key(&report.effect_id);
    (gas_used > 0).then_some(Projection { key, value: Some(value) })
}

/// Gas of the step that this effect asked for; nothing where this engine did not take it or used none.
///
/// # Errors
/// Where the store cannot be read.
pub fn gas(store: &Store, effect_id: &Digest) -> Result<Option<Gas>, StoreFault> {
    let row = store.projection(&gas_key(effect_id))?;
    Ok(row.and_then(|row| serde_json::from_slice(&row).ok()))
}

/// How a mediator's part in a case looks from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Not decided.
    Open,
    /// It voted as the deal was decided.
    Agreed,
    /// It voted valid or invalid, and the deal was decided the other way.
    Disagreed,
    /// It voted inconclusive.
    Inconclusive,
    /// It voted, but no verdict of valid or invalid came out.
    Undecided,
    /// It revealed no vote until the round's time was over.
    Silent,
    /// Others decided before it spoke.
    Unheard,
}

impl Standing {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Agreed => "agreed",
            Self::Disagreed => "disagreed",
            Self::Inconclusive => "inconclusive",
            Self::Undecided => "undecided",
            Self::Silent => "silent",
            Self::Unheard => "unheard",
        }
    }
}

/// A mediator's place on a panel, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The deal.
    pub deal_id: DealId,
    /// The round, from 0.
    pub round: u32,
    /// When the panel was known.
    pub opened_at: Timestamp,
    /// Members of the panel.
    pub panel_size: u32,
    /// Whether it was drawn rather than appointed.
    pub drawn: bool,
    /// When it committed to a vote, if it had to.
    pub committed_at: Option<Timestamp>,
    /// When it voted.
    pub voted_at: Option<Timestamp>,
    /// What it voted.
    pub vote: Option<VerdictKind>,
    /// Why, as a stable code; `withheld` where it attested that a party served nothing.
    pub reason_code: String,
    /// Whether a quorum of the round voted alike; nothing where there was none.
    pub with_majority: Option<bool>,
    /// How its part looks from the end.
    pub standing: Standing,
    /// How the deal was decided.
    pub outcome: Option<Outcome>,
    /// Whether another panel followed.
    pub redrawn: bool,
    /// What silence cost at most: never more than the bond held, nor than an appointed mediator agreed to.
    pub slash: Amount,
    /// The transaction that slashed.
    pub slash_transaction: Option<B256>,
    /// Token of fee and collateral; zero where no contract holds the money.
    pub token: Address,
    /// What it was paid.
    pub fee: Amount,
    /// When the money moved.
    pub settled_at: Option<Timestamp>,
    /// Gas of the deal's steps that this engine took so far: the operator's cost, not the mediator's alone.
    pub gas_used: u64,
}

#[derive(Default)]
struct Book {
    cases: Vec<Case>,
    score: u64,
    streak: u64,
    streak_longest: u64,
}

impl Book {
    fn right(&mut self) {
        self.score += 1;
        self.streak += 1;
        self.streak_longest = self.streak_longest.max(self.streak);
    }

    fn wrong(&mut self) {
        self.score = u64::try_from(u128::from(self.score) * 2 / 3).unwrap_or_default();
        self.streak = 0;
    }
}

/// A deal that was disputed and is not settled.
struct Open {
    token: Address,
    slash: Amount,
    drawn: bool,
    quorum: u32,
    gas_used: u64,
    /// Places in the books, by round and mediator.
    places: BTreeMap<(u32, Address), usize>,
    silent: BTreeMap<u32, Vec<Address>>,
}

/// All mediators' books up to a position of the log.
#[derive(Default)]
pub struct Accounts {
    position: u64,
    at: Timestamp,
    open: BTreeMap<DealId, Open>,
    books: BTreeMap<Address, Book>,
}

impl Accounts {
    /// The log position up to which the books are kept.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Everybody who was ever on a panel, ascending.
    pub fn mediators(&self) -> impl Iterator<Item = Address> {
        self.books.keys().copied()
    }

    /// A mediator's cases in the order in which they were opened.
    pub fn cases(&self, mediator: Address) -> &[Case] {
        self.books.get(&mediator).map_or(&[], |book| &book.cases)
    }

    /// Reads the log on to where it ends now.
    ///
    /// # Errors
    /// Where the store cannot be read; what was read until then is kept.
    pub fn catch_up(&mut self, store: &Store) -> Result<(), ReplayFault> {
        if store.last_position() < self.position {
            *self = Self::default();
        }
        for record in store.log(self.position + 1) {
            let record = record?;
            self.take(store, &record)?;
            (self.position, self.at) = (record.position, record.recorded_at);
        }
        Ok(())
    }

    fn take(&mut self, store: &Store, record: &Record) -> Result<(), ReplayFault> {
        let (deal_id, at, position) = (record.deal_id, record.recorded_at, record.position);
        let parsed = record.envelope.clone().parse().map_err(|source| ReplayFault::Decode { position, source })?;
        match parsed.into_kind() {
            EventKind::PanelDrawn { round, panel, .. } => return self.drawn(store, deal_id, round, &panel, record),
            // Who never had a panel had no dispute.
            _ if !self.open.contains_key(&deal_id) => {}
            EventKind::VoteCommitted { round, .. } => {
                if let Some(case) = self.case(deal_id, round, record.signer) {
                    case.committed_at = Some(at);
                }
            }
            EventKind::VoteRevealed { vote, .. } | EventKind::VerdictGiven { vote } => {
                self.voted(deal_id, record.signer, &vote, at);
            }
            EventKind::DeadlineElapsed { deadline, round, silent, .. } if deadline == "mediate" => {
                for mediator in &silent {
                    if let Some(case) = self.case(deal_id, round, *mediator) {
                        case.standing = Standing::Silent;
                        self.books.entry(*mediator).or_default().wrong();
                    }
                }
                if let Some(open) = self.open.get_mut(&deal_id) {
                    open.silent.insert(round, silent);
                }
            }
            EventKind::ChainObserved { step, effect_id, transaction, failure: None, .. } => {
                self.stepped(store, deal_id, &step, &effect_id, transaction)?;
            }
            EventKind::ChainObserved { step, effect_id, failure: Some(failure), .. } if failure == REORGANISED => {
                self.undone(store, deal_id, &step, &effect_id)?;
            }
            EventKind::VerdictReached { outcome, .. } => self.decided(deal_id, outcome),
            EventKind::Settled { outcome, payouts, transaction, .. } => {
                // Timeouts are decided without a verdict.
                self.decided(deal_id, outcome);
                let fees = payouts.iter().filter(|payout| payout.role == Role::Mediator);
                let fees = fees.map(|payout| (payout.account, payout.paid)).collect();
                self.settled(deal_id, outcome, &fees, transaction, at);
            }
            _ => {}
        }
        Ok(())
    }

    fn case(&mut self, deal_id: DealId, round: u32, mediator: Address) -> Option<&mut Case> {
        let place = *self.open.get(&deal_id)?.places.get(&(round, mediator))?;
        self.books.get_mut(&mediator)?.cases.get_mut(place)
    }

    fn drawn(
        &mut self,
        store: &Store,
        deal_id: DealId,
        round: u32,
        panel: &[Address],
        record: &Record,
    ) -> Result<(), ReplayFault> {
        let open = match self.open.entry(deal_id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => match opened(store, deal_id, record.position)? {
                Some(open) => entry.insert(open),
                None => return Ok(()),
            },
        };
        for ((_, mediator), place) in &open.places {
            if let Some(case) = self.books.get_mut(mediator).and_then(|book| book.cases.get_mut(*place)) {
                case.redrawn = true;
            }
        }
        for mediator in panel {
            let book = self.books.entry(*mediator).or_default();
            let Entry::Vacant(place) = open.places.entry((round, *mediator)) else { continue };
            place.insert(book.cases.len());
            book.cases.push(Case {
                deal_id,
                round,
                opened_at: record.recorded_at,
                panel_size: u32::try_from(panel.len()).unwrap_or(u32::MAX),
                drawn: open.drawn,
                committed_at: None,
                voted_at: None,
                vote: None,
                reason_code: String::new(),
                with_majority: None,
                standing: Standing::Open,
                outcome: None,
                redrawn: false,
                slash: Amount::ZERO,
                slash_transaction: None,
                token: open.token,
                fee: Amount::ZERO,
                settled_at: None,
                gas_used: open.gas_used,
            });
        }
        Ok(())
    }

    fn voted(&mut self, deal_id: DealId, mediator: Address, vote: &VerdictVote, at: Timestamp) {
        let Some(case) = self.case(deal_id, vote.round, mediator) else { return };
        (case.voted_at, case.vote) = (Some(at), Some(vote.verdict));
        case.reason_code.clone_from(&vote.reason_code);
        let Some(open) = self.open.get(&deal_id) else { return };
        let places: Vec<_> = open
            .places
            .iter()
            .filter(|((round, _), _)| *round == vote.round)
            .map(|((_, member), place)| (*member, *place))
            .collect();
        let votes: Vec<_> = places.iter().filter_map(|(member, place)| self.books[member].cases[*place].vote).collect();
        let alike = |verdict: VerdictKind| votes.iter().filter(|vote| **vote == verdict).count();
        let winner = votes.iter().copied().find(|verdict| alike(*verdict) >= open.quorum as usize);
        for (member, place) in places {
            if let Some(case) = self.books.get_mut(&member).and_then(|book| book.cases.get_mut(place)) {
                case.with_majority = case.vote.zip(winner).map(|(vote, winner)| vote == winner);
            }
        }
    }

    fn stepped(
        &mut self,
        store: &Store,
        deal_id: DealId,
        step: &str,
        effect_id: &Digest,
        transaction: B256,
    ) -> Result<(), ReplayFault> {
        let used = gas(store, effect_id)?.map_or(0, |gas| gas.gas_used);
        let Some(open) = self.open.get_mut(&deal_id) else { return Ok(()) };
        open.gas_used = open.gas_used.saturating_add(used);
        let slashed = step.strip_prefix("silence-").and_then(|round| round.parse::<u32>().ok());
        let silent = slashed.and_then(|round| Some((round, open.silent.get(&round)?.clone())));
        for ((_, mediator), place) in &open.places {
            if let Some(case) = self.books.get_mut(mediator).and_then(|book| book.cases.get_mut(*place)) {
                case.gas_used = open.gas_used;
            }
        }
        let slash = open.slash;
        if let Some((round, silent)) = silent {
            for mediator in silent {
                if let Some(case) = self.case(deal_id, round, mediator) {
                    (case.slash, case.slash_transaction) = (slash, Some(transaction));
                }
            }
        }
        Ok(())
    }

    /// A reorganisation took the step back, and with it what it cost.
    fn undone(&mut self, store: &Store, deal_id: DealId, step: &str, effect_id: &Digest) -> Result<(), ReplayFault> {
        let used = gas(store, effect_id)?.map_or(0, |gas| gas.gas_used);
        let Some(open) = self.open.get_mut(&deal_id) else { return Ok(()) };
        open.gas_used = open.gas_used.saturating_sub(used);
        let (gas_used, slashed) = (open.gas_used, step.strip_prefix("silence-").and_then(|round| round.parse().ok()));
        for ((round, mediator), place) in &open.places {
            let case = self.books.get_mut(mediator).and_then(|book| book.cases.get_mut(*place));
            let Some(case) = case else { continue };
            case.gas_used = gas_used;
            if slashed == Some(*round) {
                (case.slash, case.slash_transaction) = (Amount::ZERO, None);
            }
        }
        Ok(())
    }

    /// Compares every vote of the deal with how it was decided, once.
    fn decided(&mut self, deal_id: DealId, outcome: Outcome) {
        let Some(open) = self.open.get(&deal_id) else { return };
        for ((_, mediator), place) in &open.places {
            let Some(book) = self.books.get_mut(mediator) else { continue };
            let Some(case) = book.cases.get_mut(*place).filter(|case| case.outcome.is_none()) else { continue };
            case.outcome = Some(outcome);
            if case.standing == Standing::Silent {
                continue;
            }
            case.standing = match (case.vote, outcome) {
                (None, _) => Standing::Unheard,
                (Some(VerdictKind::Inconclusive), _) => Standing::Inconclusive,
                (Some(VerdictKind::Valid), Outcome::Valid) | (Some(VerdictKind::Invalid), Outcome::Invalid) => {
                    Standing::Agreed
                }
                (Some(_), Outcome::Valid | Outcome::Invalid) => Standing::Disagreed,
                (Some(_), _) => Standing::Undecided,
            };
            match case.standing {
                Standing::Agreed => book.right(),
                Standing::Disagreed => book.wrong(),
                _ => {}
            }
        }
    }

    fn settled(
        &mut self,
        deal_id: DealId,
        outcome: Outcome,
        fees: &BTreeMap<Address, Amount>,
        transaction: Option<B256>,
        at: Timestamp,
    ) {
        let Some(open) = self.open.remove(&deal_id) else { return };
        let last = open.places.keys().map(|(round, _)| *round).max().unwrap_or_default();
        for ((round, mediator), place) in open.places {
            let Some(case) = self.books.get_mut(&mediator).and_then(|book| book.cases.get_mut(place)) else { continue };
            case.settled_at = Some(at);
            if round == last && case.vote.is_some() {
                case.fee = fees.get(&mediator).copied().unwrap_or_default();
            }
            // The contract slashes an appointed mediator itself, when everybody is refunded.
            let by_contract = !open.drawn && outcome == Outcome::MediateTimeout && transaction.is_some();
            if by_contract && round == last && case.standing == Standing::Silent {
                (case.slash, case.slash_transaction) = (open.slash, transaction);
            }
        }
    }

    /// A mediator's sums over the cases opened at or after `since`. Score and streak are over all of them.
    pub fn record(&self, mediator: Address, since: Timestamp) -> MediatorRecord {
        let empty = Book::default();
        let book = self.books.get(&mediator).unwrap_or(&empty);
        let cases = || book.cases.iter().filter(|case| case.opened_at >= since);
        let count = |standing: Standing| cases().filter(|case| case.standing == standing).count();
        let mut earned: BTreeMap<String, Amount> = BTreeMap::new();
        let mut by_day: BTreeMap<(String, String), (Amount, u64)> = BTreeMap::new();
        let (mut slashed, mut gas, mut deals) = (Amount::ZERO, 0u64, BTreeSet::new());
        for case in cases() {
            slashed = sum(slashed, case.slash);
            if deals.insert(case.deal_id) {
                gas = gas.saturating_add(case.gas_used);
            }
            let Some(at) = case.settled_at.filter(|_| !case.fee.is_zero()) else { continue };
            let token = token_word(case.token);
            let total = earned.entry(token.clone()).or_default();
            *total = sum(*total, case.fee);
            let day = by_day.entry((moment::day(at), token)).or_default();
            *day = (sum(day.0, case.fee), day.1 + 1);
        }
        let skip = by_day.len().saturating_sub(DAYS_MAX);
        let days = by_day.into_iter().skip(skip);
        MediatorRecord {
            mediator: format!("{mediator:#x}"),
            log_position: self.position,
            as_of: self.at.to_string(),
            cases: cases().count(),
            open: count(Standing::Open),
            voted: cases().filter(|case| case.vote.is_some()).count(),
            agreed: count(Standing::Agreed),
            disagreed: count(Standing::Disagreed),
            inconclusive: count(Standing::Inconclusive),
            undecided: count(Standing::Undecided),
            silent: count(Standing::Silent),
            unheard: count(Standing::Unheard),
            redrawn: cases().filter(|case| case.redrawn).count(),
            withheld: cases().filter(|case| case.reason_code == "withheld").count(),
            earned,
            slashed,
            gas_used: gas,
            score: book.score,
            streak: book.streak,
            streak_longest: book.streak_longest,
            last_vote_at: cases().filter_map(|case| case.voted_at).max().map(|at| at.to_string()),
            days: days.map(|((day, token), (earned, cases))| Day { day, token, earned, cases }).collect(),
        }
    }
}

/// The deal whose first panel is recorded at `position`.
fn opened(store: &Store, deal_id: DealId, position: u64) -> Result<Option<Open>, ReplayFault> {
    let (mut open, mut gas_used) = (None, 0u64);
    for record in store.stream(&deal_id, 1) {
        let record = record?;
        if record.position >= position {
            break;
        }
        let source = |source| ReplayFault::Decode { position: record.position, source };
        match record.envelope.parse().map_err(source)?.into_kind() {
            EventKind::Proposed { terms, .. } => open = Some(Open::new(&terms)),
            EventKind::ChainObserved { effect_id, failure, .. } => {
                let used = gas(store, &effect_id)?.map_or(0, |gas| gas.gas_used);
                match failure.as_deref() {
                    None => gas_used = gas_used.saturating_add(used),
                    Some(REORGANISED) => gas_used = gas_used.saturating_sub(used),
                    Some(_) => {}
                }
            }
            _ => {}
        }
    }
    Ok(open.map(|open| Open { gas_used, ..open }))
}

impl Open {
    fn new(terms: &Terms) -> Self {
        let mediation = &terms.mediation;
        Self {
            token: terms.money().token,
            slash: mediation.silence_slash,
            drawn: mediation.protocol == Protocol::Drawn,
            quorum: mediation.quorum,
            gas_used: 0,
            places: BTreeMap::new(),
            silent: BTreeMap::new(),
        }
    }
}

/// A mediator's sums.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MediatorRecord {
    /// Its account.
    pub mediator: String,
    /// The log position that this is as of.
    pub log_position: u64,
    /// When that was recorded.
    pub as_of: String,
    /// Places on panels.
    pub cases: usize,
    /// Not decided.
    pub open: usize,
    /// Votes given or revealed in time.
    pub voted: usize,
    /// See [`Standing::Agreed`].
    pub agreed: usize,
    /// See [`Standing::Disagreed`].
    pub disagreed: usize,
    /// See [`Standing::Inconclusive`].
    pub inconclusive: usize,
    /// See [`Standing::Undecided`].
    pub undecided: usize,
    /// See [`Standing::Silent`].
    pub silent: usize,
    /// See [`Standing::Unheard`].
    pub unheard: usize,
    /// Cases after which another panel followed.
    pub redrawn: usize,
    /// Votes that attest that a party served nothing.
    pub withheld: usize,
    /// Fees by token; `none` where no contract holds the money.
    pub earned: BTreeMap<String, Amount>,
    /// What silence cost at most.
    pub slashed: Amount,
    /// Gas of the steps that this engine took in the deals of these cases.
    pub gas_used: u64,
    /// iExec's score.
    pub score: u64,
    /// Right votes since the last wrong or silent one.
    pub streak: u64,
    /// The longest streak so far.
    pub streak_longest: u64,
    /// When it voted last.
    pub last_vote_at: Option<String>,
    /// Earnings by day and token, ascending.
    pub days: Vec<Day>,
}

/// A day's earnings in a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Day {
    /// In UTC, when the money moved.
    pub day: String,
    /// The token; `none` where no contract holds the money.
    pub token: String,
    /// Fees.
    pub earned: Amount,
    /// Cases that paid them.
    pub cases: u64,
}

/// The columns of [`csv`]: moments are RFC 3339 in UTC, amounts base units of `token`, what is not known is empty.
pub const CSV_COLUMNS: [&str; 18] = [
    "deal_id",
    "round",
    "opened_at",
    "protocol",
    "panel_size",
    "committed_at",
    "voted_at",
    "vote",
    "reason_code",
    "with_majority",
    "standing",
    "outcome",
    "redrawn",
    "token",
    "fee",
    "settled_at",
    "slash",
    "gas_used",
];

impl Case {
    /// What [`CSV_COLUMNS`] name.
    pub fn row(&self) -> [String; 18] {
        let moment = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
        [
            self.deal_id.to_string(),
            self.round.to_string(),
            self.opened_at.to_string(),
            if self.drawn { "drawn" } else { "appointed" }.into(),
            self.panel_size.to_string(),
            moment(self.committed_at),
            moment(self.voted_at),
            self.vote.map(|vote| vote.word().to_owned()).unwrap_or_default(),
            self.reason_code.clone(),
            self.with_majority.map(|with| with.to_string()).unwrap_or_default(),
            self.standing.word().into(),
            self.outcome.map(|outcome| outcome.word().to_owned()).unwrap_or_default(),
            self.redrawn.to_string(),
            token_word(self.token),
            self.fee.to_string(),
            moment(self.settled_at),
            self.slash.to_string(),
            self.gas_used.to_string(),
        ]
    }

    /// The same as JSON: numbers are numbers, amounts decimal strings, what is not known is null.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "deal_id": self.deal_id, "round": self.round, "opened_at": self.opened_at.to_string(),
            "protocol": if self.drawn { "drawn" } else { "appointed" }, "panel_size": self.panel_size,
            "committed_at": self.committed_at.map(|at| at.to_string()),
            "voted_at": self.voted_at.map(|at| at.to_string()),
            "vote": self.vote.map(VerdictKind::word), "reason_code": self.reason_code,
            "with_majority": self.with_majority, "standing": self.standing,
            "outcome": self.outcome.map(Outcome::word), "redrawn": self.redrawn, "token": token_word(self.token),
            "fee": self.fee, "settled_at": self.settled_at.map(|at| at.to_string()), "slash": self.slash,
            "slash_transaction": self.slash_transaction.map(|hash| format!("{hash:#x}")), "gas_used": self.gas_used,
        })
    }
}

/// Cases by RFC 4180 with a header line, one line a case.
pub fn csv<'a>(cases: impl IntoIterator<Item = &'a Case>) -> String {
    let mut text = CSV_COLUMNS.join(",");
    text.push_str("\r\n");
    for case in cases {
        for (index, field) in case.row().iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(&csv_field(field));
        }
        text.push_str("\r\n");
    }
    text
}

/// Quoted where it must be. What others wrote must not become a formula where a spreadsheet opens it.
fn csv_field(field: &str) -> String {
    let formula = field.starts_with(['=', '+', '-', '@', '\t']);
    let field = if formula { format!("'{field}") } else { field.to_owned() };
    if field.contains([',', '"', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

/// The token's address, or `none`.
pub fn token_word(token: Address) -> String {
    if token.is_zero() { "none".into() } else { format!("{token:#x}") }
}

/// What no amount of tokens reaches stays where it is.
fn sum(a: Amount, b: Amount) -> Amount {
    a.checked_add(b).unwrap_or(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_grows_by_one_and_loses_a_third() {
        let mut book = Book { score: 29, streak: 4, streak_longest: 4, ..Book::default() };
        book.right();
        assert_eq!((book.score, book.streak, book.streak_longest), (30, 5, 5));
        book.wrong();
        assert_eq!((book.score, book.streak, book.streak_longest), (20, 0, 5));
        book.wrong();
        assert_eq!(book.score, 13, "rounded down");
    }

    #[test]
    fn what_others_wrote_stays_in_its_field() {
        assert_eq!(csv_field("ok"), "ok");
        assert_eq!(csv_field("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
        assert_eq!(csv_field("=HYPERLINK(1)"), "'=HYPERLINK(1)");
    }
}
