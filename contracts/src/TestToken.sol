// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @notice A token that anyone may mint, for tests and demonstrations only.
contract TestToken is ERC20 {
    constructor() ERC20("Tribunal Test Token", "TTT") {}

    /// @notice Creates `amount` base units for `account`.
    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }
}
