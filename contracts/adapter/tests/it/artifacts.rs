use tribunal_contracts::{checkpoints_abi, escrow_abi, registry_abi, token_abi};

/// EIP-170.
const CODE_BYTES_MAX: usize = 24_576;

#[test]
fn committed_contracts_fit_a_chain_and_hold_nothing_of_the_machine_that_compiled_them() {
    for (name, text) in [
        ("TribunalEscrow", escrow_abi()),
        ("MediatorRegistry", registry_abi()),
        ("TestToken", token_abi()),
        ("CheckpointRegistry", checkpoints_abi()),
    ] {
        let artifact: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(artifact["contractName"], name);
        let keys: Vec<_> = artifact.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["abi", "bytecode", "contractName", "deployedBytecode"]);
        let code = artifact["deployedBytecode"]["object"].as_str().unwrap();
        let bytes = alloy_primitives::hex::decode(code).expect("linked");
        assert!(bytes.len() <= CODE_BYTES_MAX, "{name}: {}", bytes.len());
    }
}
