"""A second verifier of evidence bundles, written from the format's documentation alone.

    verify_bundle.py [--log-key VKEY] FILE...

It shares nothing with the engine: the container, frames and hashes follow the documentation of `engine/src/bundle.rs`,
messages `events/proto`, the EIP-712 types and their preimages `contracts/src/ITribunalEscrow.sol`, trees RFC 6962 (with
the verification of RFC 9162, section 2.1), checkpoints the C2SP note format. It does not know the rules of deals, does
not run verifiers, and says so. For each claim it prints a line:

    proved      follows from the file (and from the log's key, where one is named)
    attested    on somebody's word alone
    unchecked   not looked at
    failed      the first thing that is wrong, with which nothing after it was looked at

Exit codes: 0 nothing failed, 1 something failed or a file cannot be read. Input of any kind gives one of the two. Of
several files each is verified, after a line with its name.
"""

import hashlib
import re
import sys

from blake3 import blake3

from hashing import Domain, Unsound, compact, derive_key, hexed, json_of, object_of, require, unbase64, unhexed
from messages import Record, Terms, artifacts_of_claim, check_event, check_vote, report_digest
from transparency import Checkpoint, LogKey, leaf_hash, root_of_head, root_of_inclusion

FILE_BYTES_MAX = 1 << 30
SECTIONS_MAX = 65_536
LINE_BYTES_MAX = 64 + 1 + 20 + 1 + 100 + 1
LOG_SECTIONS = {"checkpoint", "log-key.json", "proofs.json"}

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
    sections = {}
    for digest, size, name in lines:
        sections[name] = data[at : at + size]
        at += size
        require(blake3(sections[name]).hexdigest() == digest, f"the digest of section {name} does not match")
    require(derive_key("tribunal.v1 bundle", data[:-32]) == data[-32:], "the file's digest does not match")
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
            or (number == 2 and (name in LOG_SECTIONS or re.fullmatch(r"receipt/0x[0-9a-f]{64}", name)))
        )
        require(known, f"a bundle of format {number} has no section {name}, or versions have a gap there")
    for name in ("deal.json", "terms"):
        require(name in sections, f"the file has no section {name}")
    held = LOG_SECTIONS & sections.keys()
    require(len(held) in (0, 3), f"of checkpoint, log key and proofs the file holds only {', '.join(sorted(held))}")
    return count


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
        self.step("receipts", self.receipts)
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
        self.reports, count, digested = {}, 0, 0
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
                digested += report_digest(verdict.bytes(7)) == verdict.bytes(4)
        self.say("proved", "votes", f"{count} verdicts, each signed by its mediator for this deal")
        status = "proved" if digested == len(self.reports) else "attested"
        self.say(status, "reports", f"{digested} of {len(self.reports)} are what the vote's digest is of")

    def contents(self):
        held = {name: data for name, data in self.sections.items() if name.startswith("report/")}
        require(held == self.reports, "the reports are not those that the votes hold")
        named = self.terms.artifacts()
        for kind, event in self.events:
            if kind in (12, 23):
                named |= artifacts_of_claim(event.message(1))
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
        words = (
            f"summary, {len(held)} reports and {len(artifacts)} artifacts are the records'; {len(left_out)} left out"
        )
        self.say("proved", "contents", words)

    def receipts(self):
        """What a node said of transactions that the operator says belong to the deal."""
        named = {hexed(event.bytes(3)) for kind, event in self.events if kind in (43, 44)}
        held = {name[8:]: data for name, data in self.sections.items() if name.startswith("receipt/")}
        for transaction, data in held.items():
            require(transaction in named, f"transaction {transaction} is not named by the deal")
            receipt = json_of(data, f"receipt {transaction}")
            require(isinstance(receipt, dict), f"receipt {transaction} is no object")
            require(receipt.get("transactionHash") == transaction, f"receipt {transaction} is another transaction's")
        if held:
            self.say("unchecked", "receipts", f"{len(held)} as a node gave them; nobody has signed them")

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
        self.path = file["head"]
        self.say("proved", "inclusion", f"all {self.count} records are in the checkpoint's tree, at their positions")

    def complete(self):
        last, path = self.list[-1], hashes_of(self.path, 256)
        root = root_of_head(self.terms.deal_id, last.version, last.position, last.link, path)
        require(root == self.head.heads_root, f"record {last.version} is not the deal's head in the checkpoint's map")
        self.say("proved", "complete", f"nothing of the deal is left out as of log position {self.head.size}")


def hashes_of(value, count_max):
    require(isinstance(value, list) and len(value) <= count_max, "the path is no list, or too long")
    path = [unbase64(text, 32) if isinstance(text, str) else None for text in value]
    require(None not in path, "the path has an entry that is no base64 of 32 bytes")
    return path


def verified(name, log_key):
    """Whether nothing in the file fails; prints its claims."""
    try:
        with open(name, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        Verifier(log_key, lambda status, claim, words: print(f"{status:<9} {claim}: {words}")).verify(data)
    except OSError as problem:
        print(f"failed    file: cannot be read: {problem.strerror}")
        return False
    except Unsound as problem:
        print(f"failed    {problem}")
        return False
    return True


def main(arguments):
    log_key = None
    if len(arguments) > 2 and arguments[0] == "--log-key":
        log_key, arguments = arguments[1], arguments[2:]
    if not arguments:
        print("usage: verify_bundle.py [--log-key VKEY] FILE...", file=sys.stderr)
        return 1
    sound = True
    for name in arguments:
        if len(arguments) > 1:
            print(f"== {name}")
        sound &= verified(name, log_key)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
