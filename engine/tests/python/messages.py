"""Terms, records and events of a deal: their bytes, hashes and signatures."""

import json
import re

from blake3 import blake3

from hashing import Domain, Unsound, canonical, decoded, derive_key, hexed, keccak256, left_padded, require, word

ZERO = bytes(32)

# ---- protobuf, as much of it as is needed


class Message:
    """The fields of one message. A field that comes twice is merged as protobuf says: numbers by the last, messages by
    their concatenation."""

    def __init__(self, data):
        self.fields, at = {}, 0
        while at < len(data):
            key, at = varint(data, at)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = varint(data, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
                value, at = data[at : at + size], at + size
            elif wire == 2:
                size, at = varint(data, at)
                value, at = data[at : at + size], at + size
            else:
                raise Unsound(f"a message has a field of wire type {wire}")
            require(at <= len(data) and number > 0, "a message ends within a field")
            self.fields.setdefault(number, []).append((wire, value))

    def values(self, number, wire):
        found = self.fields.get(number, [])
        require(all(kind == wire for kind, _ in found), f"field {number} of a message has another type")
        return [value for _, value in found]

    def number(self, number, bits=64):
        value = (self.values(number, 0) or [0])[-1]
        require(value < 1 << bits, f"field {number} of a message is beyond {bits} bits")
        return value

    def bytes(self, number, size=None):
        value = (self.values(number, 2) or [b""])[-1]
        require(size is None or len(value) == size, f"field {number} of a message has {len(value)} bytes, not {size}")
        return value

    def account(self, number):
        """20 bytes; absent: the zero address."""
        return self.bytes(number, 20) if self.bytes(number) else bytes(20)

    def text(self, number):
        return decoded(self.bytes(number), f"field {number} of a message")

    def texts(self, number):
        return [decoded(value, f"field {number} of a message") for value in self.values(number, 2)]

    def amount(self, number):
        """Decimal base units below 2^256; absent: zero."""
        text = self.text(number) or "0"
        require(re.fullmatch(r"0|[1-9][0-9]{0,77}", text) and int(text) < 1 << 256, "an amount is no decimal number")
        return int(text)

    def has(self, number):
        return number in self.fields

    def message(self, number):
        return Message(b"".join(self.values(number, 2)))

    def messages(self, number):
        return [Message(value) for value in self.values(number, 2)]

    def one_of(self, numbers, what):
        found = [number for number in numbers if number in self.fields]
        require(len(found) == 1, f"{what} is {'missing' if not found else 'of two kinds at once'}")
        return found[0]


def varint(data, at):
    value = 0
    for shift in range(0, 70, 7):
        require(at < len(data), "a message ends within a number")
        byte, at = data[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            require(value < 1 << 64, "a number in a message is beyond 64 bits")
            return value, at
    raise Unsound("a number in a message has no end")


# ---- terms


class Terms:
    TYPE = (
        b"Terms(bytes32 dealId,address client,address provider,address token,address treasury,uint256 price,"
        b"uint8 pricing,uint256 paymentCollateral,uint256 resultsCollateral,uint256 submitCollateral,"
        b"uint256 judgeCollateral,uint256 mediationFee,uint16 victimBps,uint16 feeBps,bytes32 mediatorsHash,"
        b"bytes32 timeoutsHash,uint32 rule)"
    )

    def __init__(self, data):
        self.deal_id = derive_key("tribunal.v1 deal", data)
        self.message = terms = Message(data)
        require(terms.number(1, 32) == 1, "the terms are of another version")
        members, self.settlement = terms.message(3), terms.message(11)
        self.client, self.provider, self.operator = (members.bytes(field, 20) for field in (1, 2, 4))
        self.domain = Domain(self.settlement.number(2), self.settlement.account(3))
        self.hash = self.struct_hash()

    def struct_hash(self):
        """Of EIP-712 `Terms`: the deal's `termsHash`."""
        pricing, timeouts, fee = (self.message.message(field) for field in (8, 9, 10))
        metered = pricing.one_of((1, 2), "the terms' pricing") == 2
        return keccak256(
            keccak256(self.TYPE),
            self.deal_id,
            *(left_padded(account) for account in (self.client, self.provider)),
            *(left_padded(self.settlement.account(field)) for field in (4, 5)),
            word(pricing.message(2 if metered else 1).amount(1)),
            word(2 if metered else 1),
            *(word(amount) for amount in (pricing.amount(3), pricing.amount(4))),
            *(word(amount) for amount in (timeouts.amount(7), timeouts.amount(8))),
            word(pricing.amount(5)),
            word(fee.number(3, 16)),
            word(0 if fee.number(2, 1) else fee.number(1, 16)),
            self.mediators_hash(),
            keccak256(*(word(timeouts.number(field)) for field in range(1, 7))),
            word(self.settlement.number(1, 32)),
        )

    def mediators_hash(self):
        """keccak256(abi.encode(operator, mediators, panelSize, quorum, redraws, drawn, silenceSlash))."""
        mediation = self.message.message(7)
        drawn = mediation.one_of((1, 2), "the terms' mediation") == 2
        rules = mediation.message(2 if drawn else 1)
        panel_size, quorum, redraws = (
            (rules.number(field, 8) for field in (1, 2, 3)) if drawn else (1, 1, rules.number(1, 8))
        )
        mediators = mediation.values(3, 2)
        require(all(len(account) == 20 for account in mediators), "a mediator's account has not 20 bytes")
        head = [left_padded(self.operator), word(7 * 32), word(panel_size), word(quorum), word(redraws), word(drawn)]
        tail = [word(len(mediators)), *(left_padded(account) for account in mediators)]
        return keccak256(*head, word(mediation.amount(4)), *tail)

    def signer_of_consent(self, signature):
        return self.domain.signer(signature, self.hash)

    def artifacts(self):
        job, method = self.message.message(4), self.message.message(5)
        inputs = [entry.text(2) for entry in job.messages(6)]
        return {job.text(2), job.text(5), *inputs, method.message(2).text(3)} - {""}


def artifacts_of_claim(claim):
    return {claim.text(3), claim.text(6), claim.text(7), *(entry.text(2) for entry in claim.messages(4))} - {""}


def check_vote(verdict, sender, terms):
    """That a mediator's verdict is signed by itself, for this deal."""
    kind = b"Verdict(bytes32 termsHash,uint32 round,uint8 verdict,uint64 instructionCount,bytes32 digest)"
    numbers = (word(verdict.number(field, bits)) for field, bits in ((1, 32), (2, 8), (3, 64)))
    struct = keccak256(keccak256(kind), terms.hash, *numbers, verdict.bytes(4, 32))
    signer = terms.domain.signer(verdict.bytes(5), struct)
    require(signer == sender, f"holds a verdict signed by {hexed(signer)}, not by its sender")


# ---- records


class Record:
    HEADER_BYTES = 1 + 1 + 4 + 4 + 8 + 8 + 32 + 32 + 32 + 8 + 20

    def __init__(self, frame):
        require(len(frame) >= self.HEADER_BYTES + 32, "is shorter than a record's header")
        require(frame[0] == 1 and frame[1] == 0, "is of another frame version")
        integer = lambda at, size: int.from_bytes(frame[at : at + size], "big")  # noqa: E731
        event_bytes, signature_bytes = integer(2, 4), integer(6, 4)
        self.position, self.version = integer(10, 8), integer(18, 8)
        self.deal_id, self.event_id, self.link_before = frame[26:58], frame[58:90], frame[90:122]
        self.recorded_at_us, self.signer = integer(122, 8), frame[130:150]
        require(len(frame) == self.HEADER_BYTES + event_bytes + signature_bytes + 32, "has lengths that do not add up")
        body = frame[self.HEADER_BYTES : -32]
        self.event_bytes, self.signature = body[:event_bytes], body[event_bytes:]
        self.frame, self.link = frame, frame[-32:]
        self.event = Message(self.event_bytes)

    def check(self, before, version, deal_id):
        """That this is record `version` of the deal and follows `before`."""
        require(self.version == version, f"says version {self.version}")
        require(self.deal_id == deal_id, "is of another deal")
        require(self.position > (before.position if before else 0), "has a log position that does not ascend")
        require(blake3(self.event_bytes).digest() == self.event_id, "has an event id that is not its event's hash")
        require(self.link_before == (before.link if before else ZERO), "does not link to the record before")
        link = derive_key("tribunal.v1 link", self.link_before, self.frame[:-32])
        require(link == self.link, "has a link that does not match its bytes")


KINDS = {
    10: "proposed", 11: "agreed", 12: "result_submitted", 13: "accepted", 14: "disputed", 15: "seed_revealed",
    16: "artifact_requested", 17: "artifact_missing", 18: "artifact_served", 19: "vote_committed", 20: "vote_revealed",
    21: "verdict_given", 22: "withdrawn", 23: "replica_submitted", 40: "panel_drawn", 41: "verdict_reached",
    42: "deadline_elapsed", 43: "chain_observed", 44: "settled",
}  # fmt: skip
OPERATORS_FROM = 40


def check_event(record, terms):
    """The event's kind and content, once it is the signer's."""
    event = record.event
    require(event.number(1, 32) == 1, "has an event of another schema version")
    require(event.bytes(2) == record.deal_id, "has an event of another deal")
    require(event.bytes(3) == record.signer, "names a signer that is not the event's sender")
    kind = event.one_of(KINDS, "its event's kind")
    struct = keccak256(
        keccak256(b"DealEvent(bytes32 dealId,bytes32 eventHash)"), record.deal_id, blake3(record.event_bytes).digest()
    )
    signer = terms.domain.signer(record.signature, struct)
    require(signer == record.signer, f"is signed by {hexed(signer)}, not by {hexed(record.signer)}, which it names")
    if kind >= OPERATORS_FROM:
        require(signer == terms.operator, f"is {KINDS[kind]} and not signed by the operator")
    return kind, event.message(kind)


UNSTABLE = ("verifier_version", "wall_us", "host")
OWN = ("own_outputs", "own_stdout", "fuel_used")


def report_digest(text):
    """The verdict digest of a report, which its vote signs; None where it is no report."""
    try:
        report = json.loads(decoded(text, "a report"))
        evidence, code, verdict = report["evidence"], report["reason"]["code"], report["verdict"]
        exact = evidence.get("comparator", {}).get("kind", "exact") == "exact"
        stable = exact and str(evidence.get("runtime", "wasm")).startswith("wasm")
        kept = {key: value for key, value in evidence.items() if key not in UNSTABLE and (stable or key not in OWN)}
        digested = canonical({"evidence": kept, "reason": {"code": code}, "verdict": verdict})
    except (Unsound, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    return derive_key("tribunal.v1 verdict", digested.encode("utf-8", "surrogatepass"))
