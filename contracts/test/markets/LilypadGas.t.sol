// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {LilypadFixture} from "./LilypadFixture.sol";
import {PanelFixture} from "./PanelFixture.sol";
import {AgreementState} from "../../src/markets/lilypad/Lilypad.sol";
import {IPanelVotes} from "../../src/markets/IPanelVotes.sol";
import {PanelHandler} from "../../src/markets/PanelHandler.sol";

interface GasVm {
    struct Gas {
        uint64 gasLimit;
        uint64 gasTotalUsed;
        uint64 gasMemoryUsed;
        int64 gasRefunded;
        uint64 gasRemaining;
    }

    function lastCallGas() external view returns (Gas memory);
}

/// @notice What the life of a deal costs on the contracts of Lilypad's ABI, outcome by outcome, in
/// vectors/lilypad-gas.json. Each call is a transaction of its own (isolate), so that the gas is what a receipt says:
/// 21,000 and calldata included, storage cold at its start, refunds taken off; the EVM is the one of foundry.toml.
///
/// Before it is measured, both parties have done a deal and have another one open, and the mediators have been paid
/// before, so no balance is written for the first time: the cheap case. Ids are content addresses of 46 characters.
/// The originals cost more: they load the whole deal wherever they ask whether it exists, and their configuration names
/// a compiler without switching its optimizer on. With both, measured once aside, the sums are 7 to 10 % higher.
/// Run script/lilypad-gas.sh to write the file anew; the tests compare with it.
contract LilypadGasTest is LilypadFixture, PanelFixture {
    string private constant PATH = "vectors/lilypad-gas.json";
    string private constant OPEN_ID = "QmOpenkXVfPBC6wqFtE9h4nqvKVyQ1qFt2eBdVuQmXyZ12";
    string private constant MEASURED_ID = "QmMeas1XVfPBC6wqFtE9h4nqvKVyQ1qFt2eBdVuQmXyZ12";

    string[] private _names;
    uint256[] private _spent;

    function setUp() public override {
        super.setUp();
        assertEq(bytes(MEASURED_ID).length, 46, "length of a content address");
        assertEq(bytes(RESULTS_ID).length, 46, "length of a content address");
        assertEq(bytes(DATA_ID).length, 46, "length of a content address");
    }

    /// forge-config: default.isolate = true
    function test_gas_isThatOfTheFile() external {
        string memory json = string.concat(
            "{\n \"about\": \"gas of receipts, call by call, on the contracts written here to Lilypad v2's ABI;",
            " see contracts/test/markets/LilypadGas.t.sol\",\n",
            _lives("one_mediator", 1, false),
            ",\n",
            _lives("three_mediators", 3, false),
            ",\n",
            _lives("panel_of_three", 3, true),
            "\n}\n"
        );
        if (mvm.envOr("TRIBUNAL_WRITE_GAS", false)) {
            _print(json);
        } else {
            assertBytes32(keccak256(bytes(vm.readFile(PATH))), keccak256(bytes(json)), "run script/lilypad-gas.sh");
        }
    }

    /// To forge's log, from which the script takes it.
    function _print(string memory text) private view {
        (bool done,) =
            address(0x000000000000000000636F6e736F6c652e6c6f67).staticcall(abi.encodeWithSignature("log(string)", text));
        assertTrue(done, "printed");
    }

    function _lives(string memory name, uint256 mediators, bool panel) private returns (string memory) {
        string memory json = string.concat(" \"", name, "\": {\n");
        json = string.concat(json, _life("accepted", mediators, panel), ",\n");
        json = string.concat(json, _life("mediation_accepted", mediators, panel), ",\n");
        json = string.concat(json, _life("mediation_rejected", mediators, panel), ",\n");
        json = string.concat(json, _life("timeout_agree", mediators, panel), ",\n");
        json = string.concat(json, _life("timeout_mediate", mediators, panel), ",\n");
        json = string.concat(json, "  \"timeout_submit\": null,\n  \"timeout_judge\": null\n }");
        return json;
    }

    function _life(string memory outcome, uint256 mediators, bool panel) private returns (string memory) {
        _prepare(mediators, panel);
        bytes32 which = keccak256(bytes(outcome));
        if (which == keccak256("timeout_agree")) {
            _measure("agree_job_creator", JC, _agreeCall(MEASURED_ID));
            vm.warp(block.timestamp + 3_601);
            _measure("timeout_agree", JC, abi.encodeCall(controller.timeoutAgree, (MEASURED_ID)));
            _assertEnd(AgreementState.TimeoutAgree);
        } else {
            _measure("agree_resource_provider", RP, _agreeCall(MEASURED_ID));
            _measure("agree_job_creator", JC, _agreeCall(MEASURED_ID));
            _measure(
                "add_result", RP, abi.encodeCall(controller.addResult, (MEASURED_ID, RESULTS_ID, DATA_ID, uint256(1)))
            );
            if (which == keccak256("accepted")) {
                _measure("accept_result", JC, abi.encodeCall(controller.acceptResult, (MEASURED_ID)));
                _assertEnd(AgreementState.ResultsAccepted);
            } else {
                _measure("check_result", JC, abi.encodeCall(controller.checkResult, (MEASURED_ID)));
                _end(which, panel);
            }
        }
        return _row(outcome);
    }

    function _end(bytes32 which, bool panel) private {
        if (which == keccak256("timeout_mediate")) {
            vm.warp(block.timestamp + 3_601);
            _measure("timeout_mediate", RP, abi.encodeCall(controller.timeoutMediateResult, (MEASURED_ID)));
            _assertEnd(AgreementState.TimeoutMediateResults);
            return;
        }
        bool valid = which == keccak256("mediation_accepted");
        if (panel) {
            PanelHandler handler = PanelHandler(controller.getMediationAddress());
            (bytes memory call, address voter) = _decideCall(handler, valid ? VALID : INVALID);
            _measureAt("panel_decides", voter, address(handler), call);
        } else {
            bytes memory call = valid
                ? abi.encodeCall(mediation.mediationAcceptResult, (MEASURED_ID))
                : abi.encodeCall(mediation.mediationRejectResult, (MEASURED_ID));
            _measureAt("mediator_decides", mediation.getMediator(MEASURED_ID), address(mediation), call);
        }
        _assertEnd(valid ? AgreementState.MediationAccepted : AgreementState.MediationRejected);
    }

    function _decideCall(PanelHandler handler, uint8 verdict) private view returns (bytes memory, address) {
        address[] memory panel = handler.panelOf(members.mediators, JC, RP);
        bytes32 signed = handler.hashArbitration(handler.keyOf(MEASURED_ID, panel), verdict, 100, DIGEST);
        IPanelVotes.Vote[] memory votes = _votesOf(panel.length / 2 + 1, signed);
        return (abi.encodeCall(handler.decide, (MEASURED_ID, panel, verdict, 100, DIGEST, votes)), votes[0].mediator);
    }

    /// A market afresh, with one deal done and one left open.
    function _prepare(uint256 mediators, bool panel) private {
        delete _names;
        delete _spent;
        _deploy();
        _makeKeys(mediators);
        members.mediators = _addresses();
        if (panel) {
            PanelHandler handler = new PanelHandler(controller);
            vm.prank(OWNER);
            controller.setMediationAddress(address(handler));
        }
        vm.startPrank(OWNER);
        for (uint256 i = 0; i < mediators; ++i) {
            token.transfer(members.mediators[i], 1);
        }
        vm.stopPrank();
        _toSubmitted(1);
        _accept();
        _send(RP, address(controller), _agreeCall(OPEN_ID));
        _send(JC, address(controller), _agreeCall(OPEN_ID));
    }

    function _agreeCall(string memory dealId) private view returns (bytes memory) {
        return abi.encodeCall(controller.agree, (dealId, members, timeouts, pricing));
    }

    function _measure(string memory name, address sender, bytes memory call) private {
        _measureAt(name, sender, address(controller), call);
    }

    function _measureAt(string memory name, address sender, address to, bytes memory call) private {
        _send(sender, to, call);
        uint256 gas = GasVm(address(vm)).lastCallGas().gasTotalUsed;
        assertTrue(gas > _intrinsic(call), "a transaction of its own");
        _names.push(name);
        _spent.push(gas);
    }

    function _send(address sender, address to, bytes memory call) private {
        mvm.prank(sender, sender);
        (bool done, bytes memory answer) = to.call(call);
        if (!done) {
            assembly ("memory-safe") {
                revert(add(answer, 32), mload(answer))
            }
        }
    }

    /// What a transaction costs before anything runs: 21,000, and 4 or 16 a byte.
    function _intrinsic(bytes memory call) private pure returns (uint256 gas) {
        gas = 21_000;
        for (uint256 i = 0; i < call.length; ++i) {
            gas += call[i] == 0 ? 4 : 16;
        }
    }

    function _assertEnd(AgreementState expected) private view {
        assertEq(uint8(store.getAgreement(MEASURED_ID).state), uint8(expected), "end");
    }

    function _row(string memory outcome) private view returns (string memory row) {
        row = string.concat("  \"", outcome, "\": {");
        uint256 sum;
        for (uint256 i = 0; i < _names.length; ++i) {
            row = string.concat(row, "\"", _names[i], "\": ", vm.toString(_spent[i]), ", ");
            sum += _spent[i];
        }
        row = string.concat(row, "\"sum\": ", vm.toString(sum), "}");
    }
}
