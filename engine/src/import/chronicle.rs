//! A foreign deal's observations as records bring them: decoded, each compared with those before.

use std::collections::BTreeMap;

use tribunal_contracts::lilypad::history::{Agreed, Given, Said, read_agreed, read_given, read_log};
use tribunal_events::{Address, B256, Foreign, ForeignCall, ForeignRole, ForeignSaid};

/// What contradicts the marketplace's own rules, or itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Log position of the record that shows it.
    pub position: u64,
    /// Stable code.
    pub code: &'static str,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// An event of a contract.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Log position of its record.
    pub position: u64,
    /// Its block.
    pub block: u64,
    /// Its index in the block.
    pub index: u64,
    /// The block's unix time, where it is known.
    pub time_s: Option<u64>,
    /// Its transaction.
    pub transaction: B256,
    /// What it says.
    pub said: Said,
}

/// Everything observed of one foreign deal.
#[derive(Clone, Debug, Default)]
pub struct Chronicle {
    /// The first observation: which deal this is.
    pub first: Option<Foreign>,
    /// Events in the order of the chain.
    pub heard: Vec<Heard>,
    /// What was agreed, where it was read.
    pub agreed: Option<Agreed>,
    /// What the provider gave, where it was read.
    pub given: Option<Given>,
    contracts: BTreeMap<ForeignRole, Address>,
    blocks: BTreeMap<u64, (B256, Option<u64>)>,
    places: BTreeMap<(B256, u64), (Vec<B256>, Vec<u8>)>,
}

impl Chronicle {
    /// Takes the observation recorded at a log position; what is wrong with it is told.
    pub fn take(&mut self, position: u64, foreign: &Foreign) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut say = |code, expected: String, found: String| {
            problems.push(Problem { position, code, expected, found });
        };
        self.first.get_or_insert_with(|| foreign.clone());
        let known = self.contracts.entry(foreign.role).or_insert(foreign.contract);
        let expected = if foreign.role == ForeignRole::Storage { foreign.storage } else { *known };
        if foreign.contract != expected {
            say(
                "contract",
                format!("{expected:#x} as the {} contract", foreign.role.word()),
                format!("{:#x}", foreign.contract),
            );
        }
        let (hash, time_s) = self.blocks.entry(foreign.block).or_insert((foreign.block_hash, foreign.block_time_s));
        if *hash != foreign.block_hash {
            let expected = format!("block {} with hash {hash}", foreign.block);
            say("fork", expected, format!("hash {}", foreign.block_hash));
        }
        match (*time_s, foreign.block_time_s) {
            (Some(known), Some(told)) if known != told => {
                say("block-time", format!("block {} at {known}", foreign.block), format!("at {told}"));
            }
            (None, told) => *time_s = told,
            _ => {}
        }
        match &foreign.said {
            ForeignSaid::Log { transaction, index, topics, data } => {
                let contents = (topics.clone(), data.clone());
                if let Some(known) = self.places.get(&(foreign.block_hash, *index)) {
                    let same = *known == contents;
                    let expected = format!("one record of log {index} in block {}", foreign.block);
                    say("log-twice", expected, if same { "a second one".into() } else { "another log there".into() });
                    return problems;
                }
                self.places.insert((foreign.block_hash, *index), contents);
                match read_log(foreign.role, topics, data) {
                    Ok((id, said)) if id == foreign.foreign_id => {
                        let (transaction, time_s) = (*transaction, foreign.block_time_s);
                        let (block, index) = (foreign.block, *index);
                        let heard = Heard { position, block, index, time_s, transaction, said };
                        let at = self.heard.partition_point(|it| (it.block, it.index) <= (block, index));
                        self.heard.insert(at, heard);
                    }
                    Ok((id, _)) => say("log", format!("a log about deal {:?}", foreign.foreign_id), format!("{id:?}")),
                    Err(problem) => say("log", "an event of that contract".into(), problem),
                }
            }
            ForeignSaid::Answer { call, data } => {
                let read = match call {
                    ForeignCall::GetDeal => read_agreed(data).map(|it| {
                        it.map(|(id, agreed)| {
                            let other = self.agreed.replace(agreed.clone()).is_some_and(|before| before != agreed);
                            (id, other)
                        })
                    }),
                    ForeignCall::GetResult => read_given(data).map(|it| {
                        it.map(|(id, given)| {
                            let other = self.given.replace(given.clone()).is_some_and(|before| before != given);
                            (id, other)
                        })
                    }),
                };
                match read {
                    Ok(Some((id, false))) if id == foreign.foreign_id => {}
                    Ok(Some((id, false))) => {
                        say("answer", format!("an answer about deal {:?}", foreign.foreign_id), format!("{id:?}"));
                    }
                    Ok(Some(_)) => say("answer", format!("one answer to {}", call.word()), "another one".into()),
                    Ok(None) => say("answer", format!("an answer to {}", call.word()), "an empty one".into()),
                    Err(problem) => say("answer", format!("an answer to {}", call.word()), problem),
                }
            }
        }
        problems
    }
}
