// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {MarketCheats} from "./MarketCheats.sol";
import {
    AgreementState,
    Deal,
    DealMembers,
    DealPricing,
    DealTimeout,
    DealTimeouts
} from "../../src/markets/lilypad/Lilypad.sol";
import {MarketCoophiveStorage} from "../../src/markets/lilypad/MarketCoophiveStorage.sol";
import {MarketLilypadController} from "../../src/markets/lilypad/MarketLilypadController.sol";
import {MarketLilypadMediation} from "../../src/markets/lilypad/MarketLilypadMediation.sol";
import {MarketLilypadPayments} from "../../src/markets/lilypad/MarketLilypadPayments.sol";
import {MarketLilypadStorage} from "../../src/markets/lilypad/MarketLilypadStorage.sol";
import {MarketLilypadToken} from "../../src/markets/lilypad/MarketLilypadToken.sol";

/// @notice The market as its own tests set it up: price 10, multiple 4, payment 30, mediation fee 5, timeouts 10.
abstract contract LilypadFixture is MarketCheats {
    address internal constant JC = address(0x1c);
    address internal constant RP = address(0x22);
    address internal constant SOLVER = address(0x50);
    address internal constant OWNER = address(0x0e);
    uint256 internal constant START = 1_000;
    /// Content addresses are as long as the market's.
    string internal constant DEAL_ID = "QmcbaZkXVfPBC6wqFtE9h4nqvKVyQ1qFt2eBdVuQmXyZ12";
    string internal constant RESULTS_ID = "QmRE5uLtS8Zb7q3fQ1vT2yHkPz9n6mXw4dCjBsAaGgKkLm";
    string internal constant DATA_ID = "QmDataZkXVfPBC6wqFtE9h4nqvKVyQ1qFt2eBdVuQmXyZ3";

    MarketLilypadToken internal token;
    MarketLilypadStorage internal store;
    MarketLilypadPayments internal payments;
    MarketLilypadMediation internal mediation;
    MarketLilypadController internal controller;

    DealMembers internal members;
    DealTimeouts internal timeouts;
    DealPricing internal pricing;

    function setUp() public virtual {
        vm.warp(1_000_000);
        _deploy();
        address[] memory mediators = new address[](3);
        (mediators[0], mediators[1], mediators[2]) = (vm.addr(0xa1), vm.addr(0xa2), vm.addr(0xa3));
        members = DealMembers(SOLVER, JC, RP, mediators);
        timeouts.agree = DealTimeout(3_600, 0);
        timeouts.submitResults = DealTimeout(3_600, 10);
        timeouts.judgeResults = DealTimeout(3_600, 10);
        timeouts.mediateResults = DealTimeout(3_600, 0);
        pricing = DealPricing(10, 30, 4, 5);
    }

    function _deploy() internal by(OWNER) {
        token = new MarketLilypadToken("Test", "T", 10 * START);
        store = _storage();
        payments = new MarketLilypadPayments();
        mediation = new MarketLilypadMediation();
        controller = new MarketLilypadController();
        token.setControllerAddress(address(payments));
        payments.initialize(address(token));
        payments.setControllerAddress(address(controller));
        store.setControllerAddress(address(controller));
        mediation.setControllerAddress(address(controller));
        controller.initialize(address(store), OWNER, address(payments), address(mediation), OWNER);
        token.transfer(JC, START);
        token.transfer(RP, START);
    }

    function _storage() internal virtual returns (MarketLilypadStorage) {
        return new MarketLilypadStorage();
    }

    function _agree(address party) internal by(party) {
        controller.agree(DEAL_ID, members, timeouts, pricing);
    }

    function _addResult(uint256 count) internal by(RP) {
        controller.addResult(DEAL_ID, RESULTS_ID, DATA_ID, count);
    }

    function _accept() internal by(JC) {
        controller.acceptResult(DEAL_ID);
    }

    function _check() internal by(JC) {
        controller.checkResult(DEAL_ID);
    }

    function _toAgreed() internal {
        _agree(RP);
        _agree(JC);
    }

    function _toSubmitted(uint256 count) internal {
        _toAgreed();
        _addResult(count);
    }

    function _toChecked() internal returns (address mediator) {
        _toSubmitted(1);
        _check();
        return mediation.getMediator(DEAL_ID);
    }

    function _state() internal view returns (AgreementState) {
        return store.getAgreement(DEAL_ID).state;
    }

    function _assertState(AgreementState expected) internal view {
        assertEq(uint8(_state()), uint8(expected), "state");
    }

    /// Wallets against the start, the mediator's whole wallet, and the token owner's gain.
    function _assertNet(int256 jc, int256 rp, address mediator, uint256 fee, uint256 slashed) internal view {
        assertEq(token.balanceOf(JC), uint256(int256(START) + jc), "job creator");
        assertEq(token.balanceOf(RP), uint256(int256(START) + rp), "resource provider");
        if (mediator != address(0)) assertEq(token.balanceOf(mediator), fee, "mediator");
        assertEq(token.balanceOf(OWNER), 8 * START + slashed, "token owner");
    }
}
