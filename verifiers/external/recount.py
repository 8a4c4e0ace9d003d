#!/usr/bin/env python3
"""An out-of-process verifier: counts the words of a text again, without running anybody's program.

It answers on `verifiers.<name>`. The question is a verification request as canonical JSON, with content addresses in the
place of file names; the answer is a verdict, signed as an EIP-712 `Report` over the BLAKE3 of the question and the verdict's
digest. Whoever writes a verifier of their own changes `judge` alone.

    pip install nats-py coincurve blake3 pycryptodome
    recount.py nats://127.0.0.1:4222 recount ARTIFACTS_FOLDER KEY_FILE

KEY_FILE holds 32 bytes in hex; it is made where it is missing. The account that signs is printed: an engine that lists it as
`verifiers.external.recount.address` believes no other.
"""

import asyncio
import collections
import hashlib
import json
import os
import pathlib
import re
import sys

import coincurve
import nats
from blake3 import blake3
from Crypto.Hash import keccak

FILE_BYTES_MAX = 1 << 20


class Unavailable(Exception):
    """Nobody's guilt: this verifier cannot look."""


class Artifacts:
    """Files below a folder by their content addresses."""

    def __init__(self, folder):
        self.by_address = {}
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.is_file() and path.stat().st_size <= FILE_BYTES_MAX:
                data = path.read_bytes()
                self.by_address["blake3:" + blake3(data).hexdigest()] = path
                self.by_address["sha256:" + hashlib.sha256(data).hexdigest()] = path

    def read(self, address):
        path = self.by_address.get(address)
        if path is None:
            raise Unavailable(f"{address} is not here")
        data = path.read_bytes()
        kind, _, digest = address.partition(":")
        found = blake3(data).hexdigest() if kind == "blake3" else hashlib.sha256(data).hexdigest()
        if found != digest:
            raise Unavailable(f"{path} has changed")
        return data


def judge(request, artifacts):
    """Verdict, reason code, detail and evidence for one request."""
    inputs = request.get("job", {}).get("inputs", [])
    outputs = request.get("claim", {}).get("outputs") or []
    if len(inputs) != 1 or len(outputs) != 1:
        return "inconclusive", "not-a-recount", "a text and its counts are needed", {}
    address = outputs[0].get("artifact") or "blake3:" + outputs[0]["blake3"]
    try:
        text, claimed = artifacts.read(inputs[0]["artifact"]), artifacts.read(address)
    except Unavailable as problem:
        return "inconclusive", "artifact-unavailable", str(problem), {}
    # A run of ASCII letters with single apostrophes inside, without regard to case.
    words = collections.Counter(word.lower() for word in re.findall(rb"[A-Za-z]+(?:'[A-Za-z]+)*", text))
    own = {"words": words.total(), "distinct_words": len(words), "lines": text.count(b"\n")}
    evidence = {"verifier": "recount", "text": inputs[0]["artifact"], "counts": address, "own": own}
    try:
        theirs = json.loads(claimed)
        found = {name: theirs[name] for name in own}
    except (ValueError, KeyError, TypeError) as problem:
        return "invalid", "counts-malformed", f"no counts: {problem}", evidence
    for name in sorted(own):
        if found[name] != own[name]:
            detail = f"{name}: counted {own[name]}, claimed {str(found[name])[:40]}"
            return "invalid", "counts-differ", detail, evidence
    return "valid", "ok", f"{own['words']} words counted", evidence


def keccak256(*parts):
    return keccak.new(digest_bits=256, data=b"".join(parts)).digest()


def canonical(value):
    """RFC 8785 for what `judge` gives: text with plain names, integers, lists and objects of those."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Signer:
    def __init__(self, path):
        if not path.exists():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(os.urandom(32).hex())
        self.key = coincurve.PrivateKey(bytes.fromhex(path.read_text().strip().removeprefix("0x")))
        public = self.key.public_key.format(compressed=False)[1:]
        self.address = "0x" + keccak256(public)[-20:].hex()
        kind = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
        self.domain = keccak256(keccak256(kind), keccak256(b"Tribunal"), keccak256(b"1"), bytes(64))

    def report(self, request_digest, verdict_digest):
        kind = keccak256(b"Report(bytes32 requestDigest,bytes32 verdictDigest)")
        digest = keccak256(b"\x19\x01", self.domain, keccak256(kind, request_digest, verdict_digest))
        signature = self.key.sign_recoverable(digest, hasher=None)
        return "0x" + (signature[:64] + bytes([27 + signature[64]])).hex()


def answer(question, artifacts, signer):
    verdict, code, detail, evidence = judge(json.loads(question), artifacts)
    preimage = canonical({"evidence": evidence, "reason": {"code": code}, "verdict": verdict})
    digest = blake3(preimage, derive_key_context="tribunal.v1 verdict").digest()
    return {
        "verdict": verdict,
        "reason": {"code": code, "detail": detail},
        "evidence": evidence,
        "digest": "blake3:" + digest.hex(),
        "signer": signer.address,
        "signature": signer.report(blake3(question).digest(), digest),
    }


async def main(url, name, folder, key):
    artifacts, signer = Artifacts(folder), Signer(pathlib.Path(key))
    client = await nats.connect(url)

    async def on(message):
        await message.respond(json.dumps(answer(message.data, artifacts, signer)).encode())

    # Several of one name share the questions.
    await client.subscribe(f"verifiers.{name}", queue=name, cb=on)
    await client.flush()
    print(signer.address, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
