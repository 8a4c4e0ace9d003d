// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Numbers as on chain; the market's own services count otherwise from 7 on.
enum AgreementState {
    DealNegotiating,
    DealAgreed,
    ResultsSubmitted,
    ResultsAccepted,
    ResultsChecked,
    MediationAccepted,
    MediationRejected,
    TimeoutAgree,
    TimeoutSubmitResults,
    TimeoutJudgeResults,
    TimeoutMediateResults
}

enum PaymentReason {
    PaymentCollateral,
    ResultsCollateral,
    TimeoutCollateral,
    JobPayment,
    MediationFee
}

enum PaymentDirection {
    PaidIn,
    PaidOut,
    Refunded,
    Slashed
}

struct DealMembers {
    address solver;
    address jobCreator;
    address resourceProvider;
    address[] mediators;
}

struct DealTimeout {
    /// Seconds.
    uint256 timeout;
    /// Base units.
    uint256 collateral;
}

struct DealTimeouts {
    DealTimeout agree;
    DealTimeout submitResults;
    DealTimeout judgeResults;
    DealTimeout mediateResults;
}

/// @notice Base units, but for the multiple.
struct DealPricing {
    uint256 instructionPrice;
    uint256 paymentCollateral;
    uint256 resultsCollateralMultiple;
    uint256 mediationFee;
}

struct Deal {
    /// The content address of the deal's text.
    string dealId;
    DealMembers members;
    DealTimeouts timeouts;
    DealPricing pricing;
}

struct Result {
    string dealId;
    string resultsId;
    /// The content address of the data.
    string dataId;
    uint256 instructionCount;
}

/// @notice Times in seconds, 0 where it has not happened.
struct Agreement {
    AgreementState state;
    uint256 resourceProviderAgreedAt;
    uint256 jobCreatorAgreedAt;
    uint256 dealCreatedAt;
    uint256 dealAgreedAt;
    uint256 resultsSubmittedAt;
    uint256 resultsAcceptedAt;
    uint256 resultsCheckedAt;
    uint256 mediationAcceptedAt;
    uint256 mediationRejectedAt;
    uint256 timeoutAgreeAt;
    uint256 timeoutSubmitResultsAt;
    uint256 timeoutJudgeResultsAt;
    uint256 timeoutMediateResultsAt;
}

/// @notice What the controller asks of the contract that finds mediators: the market's plug for a mediation of one's own.
interface ILilypadMediationHandler {
    function mediationRequest(Deal calldata deal) external;
}

/// @notice What that contract tells the controller in the end.
interface ILilypadMediationRequester {
    function mediationAcceptResult(string calldata dealId) external;
    function mediationRejectResult(string calldata dealId) external;
}

/// @notice Deals, agreements and results.
interface ILilypadStorage {
    event DealStateChange(string dealId, AgreementState state);

    function ensureDeal(
        string calldata dealId,
        DealMembers calldata members,
        DealTimeouts calldata timeouts,
        DealPricing calldata pricing
    ) external returns (Deal memory);
    function agreeResourceProvider(string calldata dealId) external returns (Agreement memory);
    function agreeJobCreator(string calldata dealId) external returns (Agreement memory);
    function addResult(
        string calldata dealId,
        string calldata resultsId,
        string calldata dataId,
        uint256 instructionCount
    ) external returns (Result memory);
    function acceptResult(string calldata dealId) external;
    function checkResult(string calldata dealId) external;
    function mediationAcceptResult(string calldata dealId) external;
    function mediationRejectResult(string calldata dealId) external;
    function timeoutAgree(string calldata dealId) external;
    function timeoutSubmitResult(string calldata dealId) external;
    function timeoutJudgeResult(string calldata dealId) external;
    function timeoutMediateResult(string calldata dealId) external;

    function getDeal(string calldata dealId) external view returns (Deal memory);
    function getDealsForParty(address party) external view returns (string[] memory);
    function getAgreement(string calldata dealId) external view returns (Agreement memory);
    function getResult(string calldata dealId) external view returns (Result memory);
    function getJobCost(string calldata dealId) external view returns (uint256);
    function getResultsCollateral(string calldata dealId) external view returns (uint256);
    function hasDeal(string calldata dealId) external view returns (bool);
    function isState(string calldata dealId, AgreementState state) external view returns (bool);
}

/// @notice The payments' functions as the *controller* calls them. Two of them the payments do not have, as deployed.
interface ILilypadPayments {
    function agreeResourceProvider(string calldata dealId, address resourceProvider, uint256 timeoutCollateral) external;
    function agreeJobCreator(
        string calldata dealId,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 timeoutCollateral
    ) external;
    function addResult(
        string calldata dealId,
        address resourceProvider,
        uint256 resultsCollateral,
        uint256 timeoutCollateral
    ) external;
    function acceptResult(
        string calldata dealId,
        address resourceProvider,
        address jobCreator,
        uint256 jobCost,
        uint256 paymentCollateral,
        uint256 resultsCollateral,
        uint256 timeoutCollateral
    ) external;
    function checkResult(string calldata dealId, address jobCreator, uint256 timeoutCollateral, uint256 mediationFee)
        external;
    function mediationAcceptResult(
        string calldata dealId,
        address resourceProvider,
        address jobCreator,
        uint256 jobCost,
        uint256 paymentCollateral,
        uint256 resultsCollateral,
        uint256 mediationFee
    ) external;
    function mediationRejectResult(
        string calldata dealId,
        address resourceProvider,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 resultsCollateral,
        uint256 mediationFee
    ) external;
    function timeoutAgreeRefundResourceProvider(
        string calldata dealId,
        address resourceProvider,
        uint256 timeoutCollateral
    ) external;
    function timeoutAgreeRefundJobCreator(
        string calldata dealId,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 timeoutCollateral
    ) external;
    /// Not there: the payments call it `timeoutSubmitResults`.
    function timeoutSubmitResult(
        string calldata dealId,
        address resourceProvider,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 timeoutCollateral
    ) external;
    /// Not there: the payments call it `timeoutJudgeResults`.
    function timeoutJudgeResult(
        string calldata dealId,
        address resourceProvider,
        address jobCreator,
        uint256 resultsCollateral,
        uint256 timeoutCollateral
    ) external;
    function timeoutMediateResult(
        string calldata dealId,
        address resourceProvider,
        address jobCreator,
        uint256 paymentCollateral,
        uint256 resultsCollateral,
        uint256 mediationFee
    ) external;
}
