// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @notice A token that anyone may mint, as the tests see every token.
interface IMintable {
    function mint(address account, uint256 amount) external;
    function balanceOf(address account) external view returns (uint256);
    function approve(address spender, uint256 amount) external;
}

/// @notice Keeps one percent of every transfer.
contract TollToken is ERC20("Toll", "TOLL") {
    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        uint256 toll = from == address(0) ? 0 : amount / 100;
        super._update(from, to, amount - toll);
        if (toll > 0) super._update(from, address(0), toll);
    }
}

/// @notice Returns nothing from its transfers, like the first tokens.
contract SilentToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    function mint(address account, uint256 amount) external {
        balanceOf[account] += amount;
    }

    function approve(address spender, uint256 amount) external {
        allowance[msg.sender][spender] = amount;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        allowance[from][msg.sender] -= amount;
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) internal virtual {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// @notice Says no by returning false, and moves nothing.
contract FalseToken is ERC20("False", "FALSE") {
    bool public refuses;

    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function refuse(bool refuses_) external {
        refuses = refuses_;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        return !refuses && super.transfer(to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        return !refuses && super.transferFrom(from, to, amount);
    }
}

/// @notice Pays nothing to one account.
contract BlockingToken is ERC20("Blocking", "BLOCK") {
    error Blocked(address account);

    address public blocked;

    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function blockOff(address account) external {
        blocked = account;
    }

    function _update(address from, address to, uint256 amount) internal override {
        if (to == blocked && from != address(0)) revert Blocked(to);
        super._update(from, to, amount);
    }
}

/// @notice Calls whoever is paid, and whoever pays, before it says that it is done.
contract CallingToken is ERC20("Calling", "CALL") {
    function mint(address account, uint256 amount) external {
        _mint(account, amount);
    }

    function _update(address from, address to, uint256 amount) internal override {
        super._update(from, to, amount);
        if (from == address(0)) return;
        if (from.code.length > 0) _tell(from);
        if (to.code.length > 0) _tell(to);
    }

    function _tell(address account) private {
        (bool done,) = account.call(abi.encodeWithSignature("moved()"));
        done;
    }
}

/// @notice Tries calls whenever it is called in the middle of something, and remembers which went through.
contract Thief {
    address[] public targets;
    bytes[] public attempts;
    uint256 public tried;
    uint256 public succeeded;

    function plan(address target, bytes calldata attempt) external {
        targets.push(target);
        attempts.push(attempt);
    }

    function run(address target, uint256 value, bytes calldata call) external returns (bool done) {
        (done,) = target.call{value: value}(call);
    }

    function moved() external {
        _try();
    }

    receive() external payable {
        _try();
    }

    function _try() private {
        for (uint256 i = 0; i < attempts.length; ++i) {
            ++tried;
            (bool done,) = targets[i].call(attempts[i]);
            if (done) ++succeeded;
        }
    }
}

/// @notice Takes no native currency.
contract Closed {}
