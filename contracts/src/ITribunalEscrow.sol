// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Escrow and settlement of deals
/// @notice Holds both parties' collateral of a deal and pays it out by what they, the clock or a quorum of mediators say.
/// Every step is signed with EIP-712 by those whom it concerns, so that anyone can bring it.
/// @dev A case is keyed by `termsHash`, the EIP-712 struct hash of its `Terms`; calls bring the terms and preimages again.
interface ITribunalEscrow {
    /// @notice The money of a deal, as both parties sign it. Amounts in base units of `token`, zero address: native.
    struct Terms {
        bytes32 dealId;
        address client;
        address provider;
        address token;
        address treasury;
        /// The price, or the price of one instruction.
        uint256 price;
        /// 1 fixed, 2 by instruction.
        uint8 pricing;
        /// Locked by the client; the most it pays.
        uint256 paymentCollateral;
        /// Locked by the provider; lost with an invalid result.
        uint256 resultsCollateral;
        /// Locked by the provider; lost by not submitting.
        uint256 submitCollateral;
        /// Locked by the client; lost by not judging.
        uint256 judgeCollateral;
        /// Locked by each; the loser's goes to the mediators.
        uint256 mediationFee;
        uint16 victimBps;
        uint16 feeBps;
        bytes32 mediatorsHash;
        bytes32 timeoutsHash;
        /// 1.
        uint32 rule;
    }

    /// @notice Who resolves a dispute. With a `silenceSlash` the deal relies on bonds: its last round must be over a day
    /// before what was bonded at its opening can be paid out, all waiting included. Preimage
    /// of `Terms.mediatorsHash`, `keccak256(abi.encode(fields…))`.
    struct Mediation {
        address operator;
        /// Ascending.
        address[] mediators;
        uint8 panelSize;
        uint8 quorum;
        uint8 redraws;
        /// Drawn from `mediators`, else the one mediator is appointed.
        bool drawn;
        uint256 silenceSlash;
    }

    /// @notice How long everybody has, in seconds: preimage of `Terms.timeoutsHash`, `keccak256(abi.encode(fields…))`.
    struct Timeouts {
        /// Unix time.
        uint64 agreeBy;
        uint64 submit;
        uint64 judge;
        uint64 draw;
        uint64 availability;
        uint64 mediate;
    }

    /// @notice Who judges a round.
    struct Panel {
        /// From 0.
        uint32 round;
        /// In the order that the operator signed; the one mediator where it is appointed.
        address[] members;
        /// The operator's over `Panel`; empty where the mediator is appointed.
        bytes operatorSig;
    }

    /// @notice A mediator's signed verdict: 1 valid, 2 invalid, 3 inconclusive.
    struct Vote {
        address mediator;
        uint8 verdict;
        uint64 instructionCount;
        bytes32 digest;
        bytes signature;
    }

    /// @notice The arguments of `settleVerdict` in a batch, which names mediators by their place in
    /// `Mediation.mediators`, from 0.
    struct Ruling {
        Terms terms;
        uint32 round;
        Outcome outcome;
        /// A byte each: the panel's members in the order that the operator signed.
        bytes32 seats;
        /// As `Panel.operatorSig`.
        bytes operatorSig;
        /// Ascending, one after the other: place (1 byte), verdict (1), length of the signature (2), digest (32),
        /// signature. They are about the instruction count that was submitted.
        bytes votes;
    }

    /// @notice What a party signed to enter a case.
    struct Consent {
        /// Over `Terms`.
        bytes termsSig;
        /// Over `Move` 1 with the commitment as data.
        bytes agreeSig;
        /// `keccak256(seed)`, not zero where the panel is drawn.
        bytes32 commitment;
    }

    enum State {
        None,
        Open,
        Submitted,
        Disputed,
        Settled
    }

    enum Outcome {
        None,
        Accepted,
        Valid,
        Invalid,
        Inconclusive,
        /// Never on chain: nothing is locked before both have agreed.
        AgreeTimeout,
        SubmitTimeout,
        JudgeTimeout,
        MediateTimeout,
        Withdrawn
    }

    /// @notice A case. Times in unix seconds, zero until reached.
    struct Case {
        State state;
        Outcome outcome;
        bool clientRevealed;
        bool providerRevealed;
        uint48 openedAt;
        uint48 submittedAt;
        uint48 disputedAt;
        uint64 instructionCount;
        bytes32 claimDigest;
        bytes32 clientCommitment;
        bytes32 providerCommitment;
    }

    /// @notice A field of the terms, mediation or timeouts is out of its range.
    error InvalidTerms(bytes32 field);
    /// @notice Mediators could take out their bonds before the last round is over and its silence slashed.
    error BondsLeaveEarly(uint256 needed, uint256 unbondDelay);
    /// @notice The mediation or the timeouts are not those in the terms.
    error HashMismatch(bytes32 field, bytes32 expected, bytes32 actual);
    error WrongState(bytes32 termsHash, State actual);
    /// @notice The step's time is over.
    error TooLate(uint256 deadline, uint256 timestamp);
    /// @notice The deadline has not passed yet.
    error TooEarly(uint256 deadline, uint256 timestamp);
    error BadSignature(address signer);
    error DepositTooSmall(address token, address account, uint256 needed, uint256 available);
    error WrongSeed(uint8 party);
    error SeedsMissing();
    error SeedsRevealed();
    error WrongRound(uint32 round, uint32 last);
    error WrongPanel();
    error WrongVote(address mediator);
    error VotesNotAscending();
    error NoQuorum(uint256 needed, uint256 actual);
    error WrongOutcome();
    error NotDrawn();
    error NotMediator(address account);
    error NothingToMove();
    error WrongRegistry();
    error WrongRuling();
    /// @notice Too little gas is left for the next ruling of a batch to have its part.
    error GasTooLow(uint256 needed, uint256 available);
    error OnlySelf();
    /// @notice No new cases, deposits and bonds until then.
    error Paused(uint256 until);
    error NotGuardian(address caller);
    error PauseTooLong(uint256 duration, uint256 longest);
    error PauseTooSoon(uint256 from, uint256 timestamp);

    event PausedUntil(uint256 until);
    event Deposited(address indexed token, address indexed account, uint256 amount);
    event Withdrawn(address indexed token, address indexed account, uint256 amount);
    event CaseOpened(bytes32 indexed termsHash, address indexed client, address indexed provider, bytes32 dealId);
    event ResultSubmitted(
        bytes32 indexed termsHash,
        address indexed client,
        address indexed provider,
        uint64 instructionCount,
        bytes32 claimDigest
    );
    event CaseDisputed(bytes32 indexed termsHash, address indexed client, address indexed provider);
    /// @param party 1 client, 2 provider.
    event SeedRevealed(
        bytes32 indexed termsHash, address indexed client, address indexed provider, uint8 party, bytes32 seed
    );
    /// @notice Paid is what was credited; together all that was locked. `mediatorsPaid` is the sum over the voters.
    event CaseSettled(
        bytes32 indexed termsHash,
        address indexed client,
        address indexed provider,
        Outcome outcome,
        uint256 clientPaid,
        uint256 providerPaid,
        uint256 mediatorsPaid,
        uint256 treasuryPaid
    );
    /// @notice A ruling of a batch settled nothing.
    /// @param index Its place in the batch.
    /// @param reason What `settleVerdict` would have reverted with; empty where it used up its gas or makes no sense.
    event RulingRefused(uint256 indexed index, bytes reason);
    event SilenceSlashed(bytes32 indexed termsHash, address indexed mediator, uint32 round, uint256 slashed);

    /// @notice Stops new cases, deposits and bonds for `duration` seconds, at most a week, and then not again for 30
    /// days. Only for the guardian. Whatever was opened or put in before goes on as ever: every step, every timeout, every
    /// withdrawal. It ends by itself.
    function pause(uint64 duration) external;

    /// @notice Ends a pause early. Only for the guardian.
    function unpause() external;

    /// @notice Credits the caller with what arrives of `amount` of an ERC-20 token.
    function deposit(address token, uint256 amount) external;

    /// @notice Credits the caller with native currency, under the zero address.
    function depositNative() external payable;

    /// @notice Pays out `amount` of the caller's balance.
    function withdraw(address token, uint256 amount) external;

    /// @notice Opens a case that both parties signed, and locks their collateral from their balances.
    function open(
        Terms calldata terms,
        Timeouts calldata timeouts,
        Mediation calldata mediation,
        Consent calldata client,
        Consent calldata provider
    ) external;

    /// @notice Records the provider's result. Signed: `Move` 2.
    function submitResult(
        Terms calldata terms,
        Timeouts calldata timeouts,
        uint64 instructionCount,
        bytes32 claimDigest,
        bytes calldata providerSig
    ) external;

    /// @notice The client accepts the result. Signed: `Move` 3.
    function accept(Terms calldata terms, Timeouts calldata timeouts, bytes calldata clientSig) external;

    /// @notice The client disputes the result. Signed: `Move` 4.
    function dispute(Terms calldata terms, Timeouts calldata timeouts, bytes calldata clientSig) external;

    /// @notice A party reveals its seed of the draw. Signed: `Move` 5.
    /// @param party 1 client, 2 provider.
    function reveal(
        Terms calldata terms,
        Timeouts calldata timeouts,
        Mediation calldata mediation,
        uint8 party,
        bytes32 seed,
        bytes calldata partySig
    ) external;

    /// @notice Both parties call the deal off and get back what they locked. Signed: `Move` 6.
    function withdrawCase(Terms calldata terms, bytes calldata clientSig, bytes calldata providerSig) external;

    /// @notice Settles by the votes of a round's panel. The mediators' part is shared by those whose votes are passed,
    /// dissenters too.
    /// @param outcome Valid, Invalid or Inconclusive; the latter only in the last round.
    /// @param votes Ascending by mediator.
    function settleVerdict(
        Terms calldata terms,
        Mediation calldata mediation,
        Panel calldata panel,
        Outcome outcome,
        Vote[] calldata votes
    ) external;

    /// @notice Settles many cases under one mediation, each as by `settleVerdict`. One that is refused stops no other.
    /// @param rulings Each `abi.encode(Ruling)`.
    /// @param gasEach No ruling gets more gas than this, so that none can use up what the others need.
    /// @return settled Whether each ruling settled its case; where not there is an event `RulingRefused`.
    function settleVerdicts(Mediation calldata mediation, bytes[] calldata rulings, uint256 gasEach)
        external
        returns (bool[] memory settled);

    /// @notice One ruling of a batch. The contract calls this, nobody else.
    /// @param mediatorsHash That of `mediation`.
    function settleRuling(Mediation calldata mediation, bytes32 mediatorsHash, Ruling calldata ruling) external;

    /// @notice The provider submitted nothing in time.
    function timeoutSubmit(Terms calldata terms, Timeouts calldata timeouts) external;

    /// @notice The client neither accepted nor disputed in time.
    function timeoutJudge(Terms calldata terms, Timeouts calldata timeouts) external;

    /// @notice A seed is missing: the client's silence accepts, else the provider's loses.
    function timeoutDraw(Terms calldata terms, Timeouts calldata timeouts, Mediation calldata mediation) external;

    /// @notice No round brought a verdict: both parties get back what they locked. An appointed mediator that allowed
    /// the operator is slashed `silenceSlash`, as far as it agreed to be.
    function timeoutMediate(Terms calldata terms, Timeouts calldata timeouts, Mediation calldata mediation) external;

    /// @notice Slashes mediators that the operator says were silent, once a round and only those that take this operator's
    /// word.
    /// @param operatorSig Over `Silence`.
    function slashSilent(
        Terms calldata terms,
        Mediation calldata mediation,
        uint32 round,
        address[] calldata silent,
        bytes calldata operatorSig
    ) external;

    /// @notice Who may pause, and nothing else; zero: nobody ever.
    function guardian() external view returns (address);

    /// @notice Unix time at which the last pause ends or ended, zero if there was none.
    function pausedUntil() external view returns (uint64);

    /// @notice Unix time from which there can be the next pause.
    function nextPauseAt() external view returns (uint64);

    /// @notice The case of these terms.
    function caseOf(bytes32 termsHash) external view returns (Case memory);

    /// @notice What an account has in here, free to be withdrawn or locked.
    function balanceOf(address token, address account) external view returns (uint256);

    /// @notice Whether a mediator's silence in a round was dealt with.
    function isSilencePunished(bytes32 termsHash, uint32 round, address mediator) external view returns (bool);

    /// @notice EIP-712 struct hash of the terms: `termsHash`.
    function hashTerms(Terms calldata terms) external pure returns (bytes32);

    /// @notice `keccak256(abi.encode(fields…))`.
    function hashMediation(Mediation calldata mediation) external pure returns (bytes32);

    /// @notice `keccak256(abi.encode(fields…))`.
    function hashTimeouts(Timeouts calldata timeouts) external pure returns (bytes32);

    /// @notice The digest that a mediator signs.
    function hashVerdict(bytes32 termsHash, uint32 round, uint8 verdict, uint64 instructionCount, bytes32 digest)
        external
        view
        returns (bytes32);

    /// @notice The digest that a party signs.
    function hashMove(bytes32 termsHash, uint8 action, uint64 instructionCount, bytes32 data)
        external
        view
        returns (bytes32);

    /// @notice EIP-712 domain separator.
    function domainSeparator() external view returns (bytes32);
}
