// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Cheats} from "../Cheats.sol";

/// @notice Cheat codes of which only the tests of the markets have need.
interface MarketVm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function prank(address sender, address origin) external;
    function startPrank(address sender, address origin) external;
    function envOr(string calldata name, bool otherwise) external view returns (bool);
}

abstract contract MarketCheats is Cheats {
    MarketVm internal constant mvm = MarketVm(address(vm));

    error WrongLog(uint256 index, bytes32 actual, bytes32 expected);

    /// As a transaction that `account` sends itself.
    modifier by(address account) {
        mvm.startPrank(account, account);
        _;
        vm.stopPrank();
    }

    function assertBytes4(bytes4 actual, bytes4 expected, string memory what) internal pure {
        assertEq(uint32(actual), uint32(expected), what);
    }

    function assertBytes32(bytes32 actual, bytes32 expected, string memory what) internal pure {
        assertEq(uint256(actual), uint256(expected), what);
    }

    function assertAddress(address actual, address expected, string memory what) internal pure {
        assertEq(uint160(actual), uint160(expected), what);
    }

    function _sign(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }
}
