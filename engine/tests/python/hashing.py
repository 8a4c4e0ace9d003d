"""Hashes, texts and signatures of evidence, and the one way in which any of it is refused."""

import base64
import binascii
import decimal
import hashlib
import json
import math
import re

import coincurve
from blake3 import blake3
from Crypto.Hash import keccak

HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0


class Unsound(Exception):
    """One sentence for people."""


def require(condition, sentence):
    if not condition:
        raise Unsound(sentence)


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


def decoded(data, what):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Unsound(f"{what} is no UTF-8") from None


def hexed(data):
    return "0x" + data.hex()


def unhexed(text, size):
    require(isinstance(text, str) and re.fullmatch(r"0x([0-9a-f]{2})*", text), f"{str(text)[:80]!r} is no hex")
    require(len(text) == 2 + 2 * size, f"a hex number has not {size} bytes")
    return bytes.fromhex(text[2:])


def unbase64(text, size=None):
    """Standard base64 in its one canonical form; None otherwise."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text and size in (None, len(data)) else None


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def canonical(value):
    """RFC 8785."""
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be", "surrogatepass"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(item)}" for key, item in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float):
        return number_text(value)
    return json.dumps(value, ensure_ascii=False)


def number_text(value):
    """As ECMAScript writes it."""
    require(math.isfinite(value), "a number is none")
    sign, digits, exponent = decimal.Decimal(repr(value)).normalize().as_tuple()
    text, point = "".join(map(str, digits)), len(digits) + exponent
    if value == 0:
        return "0"
    if 0 < point <= 21:
        shown = text.ljust(point, "0")[:point] + ("." + text[point:] if len(text) > point else "")
    elif -6 < point <= 0:
        shown = "0." + "0" * -point + text
    else:
        shown = text[0] + ("." + text[1:] if len(text) > 1 else "") + f"e{point - 1:+d}"
    return ("-" if sign else "") + shown


def json_of(data, name):
    try:
        value = json.loads(decoded(data, name))
        compact(value)  # can be written again: not nested too deeply
        return value
    except (ValueError, RecursionError):
        raise Unsound(f"{name} is no JSON") from None


def object_of(data, keys, name):
    """A compact JSON object with exactly these keys in this order."""
    value = json_of(data, name)
    require(isinstance(value, dict) and list(value) == keys, f"{name} does not have the keys {', '.join(keys)}")
    require(compact(value) == data, f"{name} is not compact JSON")
    return value
