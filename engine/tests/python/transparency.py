"""Trees, deal-head maps and checkpoints of the log, as a verifier needs them."""

import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hashing import Unsound, decoded, keccak256, require, sha256, unbase64

ZERO = bytes(32)


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


def is_consistent(old_size, new_size, old_root, new_root, path):
    """RFC 9162, section 2.1.4.2: whether the new tree holds the old one's leaves, unchanged and first."""
    if not 0 < old_size <= new_size:
        return False
    if old_size == new_size:
        return not path and old_root == new_root
    path = path if old_size & (old_size - 1) else [old_root, *path]
    if not path:
        return False
    at, last = old_size - 1, new_size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and (old, new) == (old_root, new_root)


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
        require(
            len(lines) == 7 and lines[4] == lines[6] == "", "the checkpoint is no note of four lines and one signature"
        )
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
