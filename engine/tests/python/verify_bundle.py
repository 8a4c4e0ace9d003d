"""A second verifier of evidence bundles, written from the format's documentation alone.

    verify_bundle.py [--log-key VKEY] FILE

It shares nothing with the engine: the container, frames and hashes follow the documentation of `engine/src/bundle.rs`,
messages `events/proto`, the EIP-712 types and their preimages `contracts/src/ITribunalEscrow.sol`, trees RFC 6962 (with
the verification of RFC 9162, section 2.1), checkpoints the C2SP note format. It does not know the rules of deals, does
not run verifiers, and says so. For each claim it prints a line:

    proved      follows from the file (and from the log's key, where one is named)
    attested    on somebody's word alone
    unchecked   not looked at
    failed      the first thing that is wrong, with which nothing after it was looked at

Exit codes: 0 nothing failed, 1 something failed or the file cannot be read. Input of any kind gives one of the two.
"""

import base64
import binascii
import hashlib
import json
import re
import sys

import coincurve
from blake3 import blake3
from Crypto.Hash import keccak
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FILE_BYTES_MAX = 1 << 30
SECTIONS_MAX = 65_536
LINE_BYTES_MAX = 64 + 1 + 20 + 1 + 100 + 1
ZERO = bytes(32)
HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
LOG_SECTIONS = {"checkpoint", "log-key.json", "proofs.json"}

# ---- what can be wrong


class Unsound(Exception):
    """One sentence for people."""


def require(condition, sentence):
    if not condition:
        raise Unsound(sentence)


# ---- hashes and signatures


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def keccak256(*parts):
    return keccak.new(digest_bits=256, data=b"".join(parts)).digest()


def derive_key(context, *parts):
    return blake3(b"".join(parts), derive_key_context=context).digest()


def word(number):
    return number.to_bytes(32, "big")


def left_padded(data):
    return data.rjust(32, b"\x00")


class Domain:
    """The EIP-712 domain of a deal's signatures; chain 0 and the zero address without a contract."""

    def __init__(self, chain_id=0, contract=bytes(20)):
        kind = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
        self.chain_id, self.contract = chain_id, contract
        self.separator = keccak256(
            keccak256(kind), keccak256(b"Tribunal"), keccak256(b"1"), word(chain_id), left_padded(contract)
        )

    def signer(self, signature, struct_hash):
        """The account whose signature (65 bytes r, s, v) is over the struct."""
        require(len(signature) == 65, f"a signature has {len(signature)} bytes, not 65")
        require(signature[64] in (27, 28), f"a signature's v is {signature[64]}, not 27 or 28")
        require(int.from_bytes(signature[32:64], "big") <= HALF_ORDER, "a signature's s is not the low one")
        digest = keccak256(b"\x19\x01", self.separator, struct_hash)
        recoverable = signature[:64] + bytes([signature[64] - 27])
        try:
            key = coincurve.PublicKey.from_signature_and_message(recoverable, digest, hasher=None)
        except Exception:  # the library raises several kinds, its own and plain ones
            raise Unsound("a signature recovers to no account") from None
        return keccak256(key.format(compressed=False)[1:])[12:]


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


def decoded(data, what):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Unsound(f"{what} is no UTF-8") from None


# ---- the container


def sections_of(data):
    """The format's number, and the sections by name, once every digest, length and the order are right."""
    require(len(data) <= FILE_BYTES_MAX, f"the file has more than {FILE_BYTES_MAX} bytes")
    first, at = line_of(data, 0)
    require(first in ("tribunal-bundle 1", "tribunal-bundle 2"), "the file is no bundle of format 1 or 2")
    lines = []
    while True:
        line, at = line_of(data, at)
        if not line:
            break
        match = re.fullmatch(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,18}) ([a-z0-9./:-]{1,100})", line, re.ASCII)
        require(match, f"section line {len(lines) + 1} is not as the format has it")
        require(len(lines) < SECTIONS_MAX, f"the file has more than {SECTIONS_MAX} sections")
        require(not lines or lines[-1][2] < match[3], f"section {match[3]} is out of order or there twice")
        lines.append((match[1], int(match[2]), match[3]))
    require(at + sum(size for _, size, _ in lines) + 32 == len(data), "the sections' lengths do not add up to the file")
    require(derive_key("tribunal.v1 bundle", data[:-32]) == data[-32:], "the file's digest does not match")
    sections = {}
    for digest, size, name in lines:
        sections[name] = data[at : at + size]
        at += size
        require(blake3(sections[name]).hexdigest() == digest, f"the digest of section {name} does not match")
    return int(first[-1]), sections


def line_of(data, at):
    end = data.find(b"\n", at, at + LINE_BYTES_MAX)
    require(end >= 0, "a section line does not end")
    require(data[at:end].isascii(), "a section line is no ASCII")
    return data[at:end].decode("ascii"), end + 1


def require_known_names(number, sections):
    count = sum(name.startswith("record/") for name in sections)
    require(count > 0, "the file has no records")
    records = {f"record/{version:08}" for version in range(1, count + 1)}
    for name in sections:
        known = (
            name in records
            or name in ("deal.json", "terms")
            or re.fullmatch(r"artifact/(blake3|sha256):[0-9a-f]{64}", name)
            or (re.fullmatch(r"report/[0-9]{8}", name) and name.replace("report", "record") in records)
            or (number == 2 and name in LOG_SECTIONS)
        )
        require(known, f"a bundle of format {number} has no section {name}, or versions have a gap there")
    for name in ("deal.json", "terms"):
        require(name in sections, f"the file has no section {name}")
    held = LOG_SECTIONS & sections.keys()
    require(len(held) in (0, 3), f"of checkpoint, log key and proofs the file holds only {', '.join(sorted(held))}")
    return count


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
        panel_size, quorum, redraws = (rules.number(field, 8) for field in (1, 2, 3)) if drawn else (1, 1, rules.number(1, 8))
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


# ---- the log


def leaf_hash(data):
    return sha256(b"\x00", data)


def node_hash(left, right):
    return sha256(b"\x01", left, right)


def root_of_inclusion(index, size, leaf, path):
    """RFC 9162, section 2.1.3.2; None where the path does not fit."""
    if not 0 <= index < size:
        return None
    at, last, node = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if at & 1 or at == last:
            node = node_hash(sibling, node)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        at, last = at >> 1, last >> 1
    return node if last == 0 else None


def root_of_head(deal_id, version, position, link, path):
    """Of the deal-head map; None where no map can have such a path."""
    if len(path) > 256 or (path and path[-1] == ZERO):  # beside nothing the entry would stand alone higher up
        return None
    node = sha256(b"\x00", deal_id, version.to_bytes(8, "big"), position.to_bytes(8, "big"), link)
    for depth in reversed(range(len(path))):
        right = deal_id[depth // 8] >> (7 - depth % 8) & 1
        node = node_hash(path[depth], node) if right else node_hash(node, path[depth])
    return node


class LogKey:
    """A verifier key: `<origin>+<key id>+<base64(1 ‖ public key)>`."""

    def __init__(self, vkey):
        parts = vkey.split("+", 2)
        require(len(parts) == 3, "a log key is not origin, key id and key with + between")
        self.origin, tagged = parts[0], unbase64(parts[2])
        require(re.fullmatch(r"[^\s+]{1,256}", self.origin), "a log key names no log")
        require(tagged and len(tagged) == 33 and tagged[0] == 1, "a log key is no Ed25519 key")
        self.public_key, self.id = tagged[1:], sha256(self.origin.encode(), b"\n", tagged)[:4]
        require(parts[1] == self.id.hex(), "a log key's id is not that of its name and key")

    def certificate_hash(self):
        kind = keccak256(b"LogKey(string origin,bytes32 publicKey)")
        return keccak256(kind, keccak256(self.origin.encode()), self.public_key)


class Checkpoint:
    """A signed note, once the signature is the log key's."""

    def __init__(self, note, key):
        note = decoded(note, "the checkpoint")
        lines = note.split("\n")
        require(len(lines) == 7 and lines[4] == lines[6] == "", "the checkpoint is no note of four lines and one signature")
        numbers = re.fullmatch(r"(0|[1-9][0-9]{0,19})\n(.*)\nheads/1 (0|[1-9][0-9]{0,19}) (.*)", "\n".join(lines[1:4]))
        require(numbers, "the checkpoint's lines are not as the format has them")
        self.size, self.deals = int(numbers[1]), int(numbers[3])
        require(max(self.size, self.deals) < 1 << 64, "the checkpoint has a number beyond 64 bits")
        self.root, self.heads_root = unbase64(numbers[2], 32), unbase64(numbers[4], 32)
        require(self.root and self.heads_root, "the checkpoint has a root that is no base64 of 32 bytes")
        require(lines[0] == key.origin, f"the checkpoint is of log {lines[0]!r}, not of {key.origin!r}")
        prefix = f"\u2014 {key.origin} "
        require(lines[5].startswith(prefix), "the checkpoint is not signed under the log's name")
        signature = unbase64(lines[5][len(prefix) :], 68)
        require(signature and signature[:4] == key.id, "the checkpoint is signed with another key")
        text = note[: len(note) - len(lines[5]) - 2]
        try:
            Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature[4:], text.encode())
        except (InvalidSignature, ValueError):
            raise Unsound("the checkpoint's signature is not the log key's") from None


def unbase64(text, size=None):
    """Standard base64 in its one canonical form; None otherwise."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text and size in (None, len(data)) else None


# ---- JSON


def hexed(data):
    return "0x" + data.hex()


def unhexed(text, size):
    require(isinstance(text, str) and re.fullmatch(r"0x([0-9a-f]{2})*", text), f"{str(text)[:80]!r} is no hex")
    require(len(text) == 2 + 2 * size, f"a hex number has not {size} bytes")
    return bytes.fromhex(text[2:])


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def object_of(data, keys, name):
    """A compact JSON object with exactly these keys in this order."""
    try:
        value = json.loads(decoded(data, name))
        written = compact(value)
    except (ValueError, RecursionError):
        raise Unsound(f"{name} is no JSON") from None
    require(isinstance(value, dict) and list(value) == keys, f"{name} does not have the keys {', '.join(keys)}")
    require(written == data, f"{name} is not compact JSON")
    return value


# ---- claims


class Verifier:
    def __init__(self, log_key, say):
        self.log_key, self.say = log_key, say

    def verify(self, data):
        """Says each claim; raises [`Unsound`] with the claim's name at the first that does not hold."""
        number, self.sections = self.step("file", lambda: sections_of(data))
        self.count = self.step("file", lambda: require_known_names(number, self.sections))
        self.say("proved", "file", f"format {number}, {len(self.sections)} sections under their digests")
        self.terms = self.step("terms", lambda: Terms(self.sections["terms"]))
        self.say("proved", "terms", f"deal {hexed(self.terms.deal_id)} is the hash of the terms")
        self.step("records", self.records)
        self.step("signatures", self.signatures)
        self.step("consent", self.consent)
        self.step("votes", self.votes)
        self.step("contents", self.contents)
        if LOG_SECTIONS & self.sections.keys():
            self.step("log key", self.key)
            self.step("checkpoint", self.checkpoint)
            self.step("inclusion", self.inclusion)
            self.step("complete", self.complete)
        else:
            self.step("log", self.no_log)
        self.say("unchecked", "rules", "whether the rules admit every step, the panels, the verdicts and the payments")

    def step(self, claim, check):
        try:
            return check()
        except Unsound as problem:
            raise Unsound(f"{claim}: {problem}") from None

    def each_record(self, check):
        results = []
        for version in range(1, self.count + 1):
            try:
                results.append(check(version))
            except Unsound as problem:
                raise Unsound(f"record {version} {problem}") from None
        return results

    def records(self):
        self.list = []

        def one(version):
            record = Record(self.sections[f"record/{version:08}"])
            record.check(self.list[-1] if self.list else None, version, self.terms.deal_id)
            self.list.append(record)

        self.each_record(one)
        self.say("proved", "records", f"{self.count} in one unbroken chain, ending in {hexed(self.list[-1].link)}")

    def signatures(self):
        self.events = self.each_record(lambda version: check_event(self.list[version - 1], self.terms))
        require(self.events[0][0] == 10, "record 1 is no proposal")
        require(all(kind != 10 for kind, _ in self.events[1:]), "there are two proposals")
        require(self.events[0][1].bytes(1) == self.sections["terms"], "record 1 proposes other terms")
        self.say("proved", "signatures", f"{self.count} events, each signed by the account that it names")

    def consent(self):
        parties = {self.terms.client: "client", self.terms.provider: "provider"}
        signed = []
        for record, (kind, event) in zip(self.list, self.events, strict=True):
            if kind not in (10, 11):
                continue
            signer = self.terms.signer_of_consent(event.bytes(2 if kind == 10 else 1))
            require(signer == record.signer, f"record {record.version} holds a consent of {hexed(signer)}")
            require(signer in parties and signer not in signed, f"record {record.version} is no other party's consent")
            signed.append(signer)
        names = " and ".join(f"{parties[account]} {hexed(account)}" for account in signed)
        self.say("proved", "consent", f"{names} signed the terms")

    def votes(self):
        self.reports, count = {}, 0
        for record, (kind, event) in zip(self.list, self.events, strict=True):
            if kind not in (20, 21):
                continue
            verdict, count = event.message(1), count + 1
            try:
                check_vote(verdict, record.signer, self.terms)
            except Unsound as problem:
                raise Unsound(f"record {record.version} {problem}") from None
            if verdict.bytes(7):
                self.reports[f"report/{record.version:08}"] = verdict.bytes(7)
        self.say("proved", "votes", f"{count} verdicts, each signed by its mediator for this deal")

    def contents(self):
        held = {name: data for name, data in self.sections.items() if name.startswith("report/")}
        require(held == self.reports, "the reports are not those that the votes hold")
        named = self.terms.artifacts()
        for kind, event in self.events:
            if kind in (12, 23):
                named |= artifacts_of_claim(event.message(1))
            elif kind in (16, 17):
                named.add(event.text(2))
            elif kind == 18:
                named.add(event.text(1))
        artifacts = {name[9:]: data for name, data in self.sections.items() if name.startswith("artifact/")}
        for address, data in artifacts.items():
            digest = blake3(data).hexdigest() if address.startswith("blake3:") else hashlib.sha256(data).hexdigest()
            require(address[7:] == digest, f"artifact {address} is another file")
            require(address in named, f"artifact {address} is not named by the deal")
        left_out = sorted(named - artifacts.keys())
        first, last, terms = self.list[0], self.list[-1], self.terms
        summary = {
            "deal_id": hexed(terms.deal_id),
            "operator": hexed(terms.operator),
            "chain_id": terms.domain.chain_id,
            "contract": hexed(terms.domain.contract),
            "records": self.count,
            "first_position": first.position,
            "last_position": last.position,
            "last_link": hexed(last.link),
            "left_out": left_out,
        }
        require(compact(summary) == self.sections["deal.json"], "deal.json does not say what follows from the records")
        words = f"summary, {len(held)} reports and {len(artifacts)} artifacts are the records'; {len(left_out)} left out"
        self.say("proved", "contents", words)

    def no_log(self):
        require(self.log_key is None, "the file has no checkpoint of the log whose key is to be trusted")
        first, last = self.list[0].position, self.list[-1].position
        self.say("unchecked", "log", f"positions {first} to {last}; nobody signed them, nor that nothing is left out")

    def key(self):
        file = object_of(self.sections["log-key.json"], ["vkey", "operator", "signature"], "log-key.json")
        require(isinstance(file["vkey"], str), "log-key.json has a vkey that is no text")
        self.vkey, operator = LogKey(file["vkey"]), unhexed(file["operator"], 20)
        require(operator == self.terms.operator, f"it is certified by {hexed(operator)}, not by the deal's operator")
        signer = Domain().signer(unhexed(file["signature"], 65), self.vkey.certificate_hash())
        require(signer == operator, f"its certificate is signed by {hexed(signer)}")
        require(self.log_key in (None, file["vkey"]), f"it is {file['vkey']}, not the key to be trusted")
        self.say("proved", "log key", f"{file['vkey']} is the one that operator {hexed(operator)} certified")

    def checkpoint(self):
        self.head = Checkpoint(self.sections["checkpoint"], self.vkey)
        status = "attested" if self.log_key is None else "proved"
        who = "the log, whose key is not among those to be trusted" if self.log_key is None else "the trusted log"
        self.say(status, "checkpoint", f"{self.head.size} records and {self.head.deals} deals, signed by {who}")

    def inclusion(self):
        file = object_of(self.sections["proofs.json"], ["tree_size", "inclusion", "head"], "proofs.json")
        lists = file["inclusion"]
        require(type(file["tree_size"]) is int and file["tree_size"] == self.head.size, "proofs are of another size")
        require(isinstance(lists, list) and len(lists) == self.count, "there is not one path a record")

        def one(version):
            record = self.list[version - 1]
            path = hashes_of(lists[version - 1], 64)
            root = root_of_inclusion(record.position - 1, self.head.size, leaf_hash(record.frame), path)
            require(root == self.head.root, f"is not at position {record.position} of the checkpoint's tree")

        self.each_record(one)
        self.path = hashes_of(file["head"], 256)
        self.say("proved", "inclusion", f"all {self.count} records are in the checkpoint's tree, at their positions")

    def complete(self):
        last = self.list[-1]
        root = root_of_head(self.terms.deal_id, last.version, last.position, last.link, self.path)
        require(root == self.head.heads_root, f"record {last.version} is not the deal's head in the checkpoint's map")
        self.say("proved", "complete", f"nothing of the deal is left out as of log position {self.head.size}")


def hashes_of(value, count_max):
    require(isinstance(value, list) and len(value) <= count_max, "has a path that is no list, or too long")
    path = [unbase64(text, 32) if isinstance(text, str) else None for text in value]
    require(None not in path, "has a path with an entry that is no base64 of 32 bytes")
    return path


def main(arguments):
    log_key = None
    if len(arguments) == 3 and arguments[0] == "--log-key":
        log_key, arguments = arguments[1], arguments[2:]
    if len(arguments) != 1:
        print("usage: verify_bundle.py [--log-key VKEY] FILE", file=sys.stderr)
        return 1
    try:
        with open(arguments[0], "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        Verifier(log_key, lambda status, claim, words: print(f"{status:<10} {claim}: {words}")).verify(data)
    except OSError as problem:
        print(f"failed     file: cannot be read: {problem.strerror}")
        return 1
    except Unsound as problem:
        print(f"failed     {problem}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
