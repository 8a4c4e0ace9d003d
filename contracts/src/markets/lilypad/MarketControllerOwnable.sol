// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";

/// @notice Owned by whoever deploys it, and open to one controller that the owner names.
abstract contract MarketControllerOwnable is Ownable {
    address private _controller;
    bool private _frozen;

    modifier onlyController() {
        require(_controller != address(0) && msg.sender == _controller, "Only the controller");
        _;
    }

    constructor() Ownable(msg.sender) {}

    function setControllerAddress(address controller) external onlyOwner {
        require(controller != address(0), "Controller address");
        require(!_frozen, "Controller address is frozen");
        _controller = controller;
    }

    function getControllerAddress() public view returns (address) {
        return _controller;
    }

    function disableChangeControllerAddress() external onlyOwner {
        _frozen = true;
    }
}
