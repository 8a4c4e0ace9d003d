// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {ERC20Pausable} from "@openzeppelin/contracts/token/ERC20/extensions/ERC20Pausable.sol";
import {MarketControllerOwnable} from "./MarketControllerOwnable.sol";

/// @title The token with escrow balances to Lilypad v2's ABI, for tests
/// @notice Written here from the ABI; it is not the original and is worth nothing. What is slashed goes to the owner,
/// who can also pause everything, as there. Its controller is the payments contract.
contract MarketLilypadToken is MarketControllerOwnable, ERC20Pausable {
    mapping(address account => uint256) private _escrowed;

    constructor(string memory name, string memory symbol, uint256 initialSupply) ERC20(name, symbol) {
        _mint(msg.sender, initialSupply);
    }

    function escrowBalanceOf(address account) external view returns (uint256) {
        return _escrowed[account];
    }

    /// @notice Takes from whoever signed the transaction, whoever calls.
    function payEscrow(uint256 amount) external returns (bool) {
        _transfer(tx.origin, address(this), amount);
        _escrowed[tx.origin] += amount;
        return true;
    }

    function refundEscrow(address toAddress, uint256 amount) external onlyController returns (bool) {
        return _release(toAddress, toAddress, amount);
    }

    function payJob(address fromAddress, address toAddress, uint256 amount) external onlyController returns (bool) {
        return _release(fromAddress, toAddress, amount);
    }

    function slashEscrow(address slashedAddress, uint256 amount) external onlyController returns (bool) {
        return _release(slashedAddress, owner(), amount);
    }

    function pause() external onlyOwner {
        _pause();
    }

    function unpause() external onlyOwner {
        _unpause();
    }

    function _release(address from, address to, uint256 amount) private returns (bool) {
        require(_escrowed[from] >= amount, "Not enough in escrow");
        _escrowed[from] -= amount;
        _transfer(address(this), to, amount);
        return true;
    }
}
