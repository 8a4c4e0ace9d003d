//! Bytes, ids and signatures: what is read, what is refused, and what never changes.

mod amount;
mod ethers;
mod golden;
mod json;
mod malformed;
mod signature;
mod terms;
mod time;
mod tlog;

use tribunal_events::{Address, B256, Foreign, ForeignRole, ForeignSaid, Marketplace, proto};
use tribunal_fixtures::{Script, TermsBuilder};

/// Terms that depend on nothing but this file.
fn terms() -> TermsBuilder {
    let address = |byte: u8| format!("blake3:{}", hex::encode([byte; 32]));
    TermsBuilder::new("golden").job(proto::Job {
        runtime: "wasm-1".into(),
        module: address(1),
        args: vec!["job".into(), "/in/a".into()],
        env: vec![proto::EnvVar { name: "LANG".into(), value: "C".into() }],
        stdin: address(2),
        inputs: vec![proto::JobInput { path: "/in/a".into(), artifact: address(3) }],
        outputs: vec!["/out".into()],
        limits: Some(proto::Limits { fuel: 1 << 40, memory_bytes: 1 << 20, output_bytes: 1 << 10, wall_ms: 1000 }),
    })
}

fn claim() -> proto::Claim {
    let address = |byte: u8| format!("sha256:{}", hex::encode([byte; 32]));
    proto::Claim {
        exit_code: -1,
        instruction_count: 1 << 60,
        stdout: address(4),
        outputs: vec![proto::ClaimedFile { path: "/out/b".into(), artifact: address(5) }],
        ..Default::default()
    }
}

/// What another marketplace's contract said.
fn foreign(said: ForeignSaid) -> Foreign {
    Foreign {
        marketplace: Marketplace::Lilypad,
        chain_id: 421_614,
        storage: Address::repeat_byte(1),
        foreign_id: "QmDeal".into(),
        contract: Address::repeat_byte(1),
        role: ForeignRole::Storage,
        block: 2,
        block_hash: B256::repeat_byte(3),
        block_time_s: Some(1_700_000_000),
        said,
    }
}

fn script() -> Script {
    Script::new(terms().build())
}
