"""Test vectors of the transparency log, made without any of the engine's code.

    make_tlog_vectors.py FOLDER           write the files
    make_tlog_vectors.py --check FOLDER   exit 1 if a file there differs

Everything here is the textbook recursion of RFC 6962 section 2.1 and of the deal-head map's definition, over whole
lists, slow and plain. Hashes are standard base64, 32 bytes; ids are 0x and 64 hex digits.

The log of every file is the same: leaf i is SHA-256("tribunal leaf <i>"), the number in decimal, repeated i mod 5
times. Leaf 0 is empty.

tree.json         {"trees": [{"size", "root"}],
                   "inclusion": [{"size", "index", "leaf_hash", "path"}],                 leaf's sibling first
                   "consistency": [{"old_size", "new_size", "old_root", "new_root", "path"}],
                   "bad_inclusion": [... and "why"], "bad_consistency": [... and "why"]}
heads.json        {"maps": [{"name", "root", "entries": [{"deal_id", "version", "position", "link"}],
                   "proofs": [{"deal_id", "path"}]}],                                     root's children first
                   "bad_proofs": [{"root", "entry", "path", "why"}]}
checkpoint.json   {"origin", "secret_key", "public_key", "vkey", "certificate": the content of a bundle's log-key.json,
                   "checkpoints": [{"tree_size", "root", "deals", "heads_root", "text", "note"}],
                   "bad_notes": [{"note", "why"}], "bad_vkeys": [{"vkey", "why"}]}
                  The Ed25519 secret is the seed of RFC 8032. Signatures are deterministic: a note must come out
                  the same.

"bad" lists hold what a verifier must refuse. (A path alone does not tell every size from every other: paths of 7 and of
8 leaves have one shape. It is the checkpoint that says which size a root is of.)
"""

import base64
import hashlib
import json
import pathlib
import sys

import coincurve
from Crypto.Hash import keccak
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ORIGIN = "log.example/tribunal"
SIZES = [0, 1, 2, 3, 7, 8, 255, 256, 257, 1000]
ZERO = bytes(32)
NEWLINE = b"\n"


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def b64(data):
    return base64.b64encode(data).decode()


def hexed(data):
    return "0x" + data.hex()


# ---- RFC 6962, 2.1


def leaf(index):
    return hashlib.sha256(f"tribunal leaf {index}".encode()).digest() * (index % 5)


LOG = [leaf(index) for index in range(max(SIZES))]


def leaf_hash(data):
    return sha256(b"\x00", data)


def split(size):
    """The largest power of two below `size`."""
    half = 1
    while half * 2 < size:
        half *= 2
    return half


def root(leaves):
    if not leaves:
        return sha256()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    half = split(len(leaves))
    return sha256(b"\x01", root(leaves[:half]), root(leaves[half:]))


def path(index, leaves):
    if len(leaves) == 1:
        return []
    half = split(len(leaves))
    if index < half:
        return path(index, leaves[:half]) + [root(leaves[half:])]
    return path(index - half, leaves[half:]) + [root(leaves[:half])]


def consistency(old, leaves):
    return [] if old in (0, len(leaves)) else subproof(old, leaves, True)


def subproof(old, leaves, whole):
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    half = split(len(leaves))
    if old <= half:
        return subproof(old, leaves[:half], whole) + [root(leaves[half:])]
    return subproof(old - half, leaves[half:], False) + [root(leaves[:half])]


def tree_vectors():
    trees = [{"size": size, "root": b64(root(LOG[:size]))} for size in SIZES]
    inclusion = []
    for size in SIZES[1:]:
        some = (
            range(size) if size <= 8 else sorted({0, 1, 2, 127, 128, split(size) - 1, split(size), size - 2, size - 1})
        )
        for index in (index for index in some if index < size):
            inclusion.append(
                {
                    "size": size,
                    "index": index,
                    "leaf_hash": b64(leaf_hash(LOG[index])),
                    "path": [b64(node) for node in path(index, LOG[:size])],
                }
            )
    grown = []
    for new in SIZES[1:]:
        for old in (old for old in SIZES[1:] + [4, 6, 128, 512, 999] if old <= new):
            grown.append(
                {
                    "old_size": old,
                    "new_size": new,
                    "old_root": b64(root(LOG[:old])),
                    "new_root": b64(root(LOG[:new])),
                    "path": [b64(node) for node in consistency(old, LOG[:new])],
                }
            )
    return {
        "trees": trees,
        "inclusion": inclusion,
        "consistency": grown,
        "bad_inclusion": bad_inclusion(),
        "bad_consistency": bad_consistency(),
    }


def bad_inclusion():
    good = {"size": 7, "index": 2, "leaf_hash": leaf_hash(LOG[2]), "path": path(2, LOG[:7])}
    nodes = good["path"]
    bad = [
        ({"index": 3}, "another leaf's index"),
        ({"index": 7}, "index is the size"),
        ({"index": 2**64 - 1}, "index beyond the size"),
        ({"size": 0}, "an empty tree holds nothing"),
        ({"size": 9, "root": root(LOG[:7])}, "another size, whose paths are longer"),
        ({"leaf_hash": leaf_hash(LOG[3])}, "another leaf"),
        ({"leaf_hash": sha256(LOG[2])}, "leaf hashed without its prefix"),
        ({"path": nodes[:-1]}, "last node is missing"),
        ({"path": nodes[1:]}, "first node is missing"),
        ({"path": nodes + [ZERO]}, "a node too many"),
        ({"path": [nodes[1], nodes[0], *nodes[2:]]}, "two nodes change places"),
        ({"path": []}, "no path"),
        ({"path": nodes * 30}, "an endless path"),
        ({"size": 1, "index": 0, "leaf_hash": leaf_hash(LOG[0]), "path": [ZERO]}, "a tree of one leaf has no path"),
    ]
    return [described({**good, **change}, why) for change, why in bad]


def described(case, why):
    tree = case.get("root") or root(LOG[: case["size"]])
    return {
        "size": case["size"],
        "index": case["index"],
        "leaf_hash": b64(case["leaf_hash"]),
        "path": [b64(node) for node in case["path"]],
        "root": b64(tree),
        "why": why,
    }


def bad_consistency():
    other = [*LOG[:2], b"rewritten", *LOG[3:]]
    nodes = consistency(6, LOG[:8])
    bad = [
        (6, 8, root(other[:6]), root(LOG[:8]), nodes, "the old tree had another leaf"),
        (6, 8, root(LOG[:6]), root(other[:8]), consistency(6, other[:8]), "a leaf of the old tree is rewritten"),
        (6, 8, root(LOG[:6]), root(LOG[:8]), nodes[:-1], "last node is missing"),
        (6, 8, root(LOG[:6]), root(LOG[:8]), nodes[1:], "first node is missing"),
        (6, 8, root(LOG[:6]), root(LOG[:8]), nodes + [ZERO], "a node too many"),
        (6, 8, root(LOG[:6]), root(LOG[:8]), [], "no path"),
        (7, 8, root(LOG[:6]), root(LOG[:8]), nodes, "another old size"),
        (6, 9, root(LOG[:6]), root(LOG[:8]), nodes, "another new size, whose paths are longer"),
        (8, 6, root(LOG[:8]), root(LOG[:6]), nodes, "the log shrinks"),
        (8, 8, root(LOG[:8]), root(other[:8]), [], "two roots of one size"),
        (8, 8, root(LOG[:8]), root(LOG[:8]), [ZERO], "equal sizes have no path"),
        (4, 8, root(other[:4]), root(LOG[:8]), consistency(4, LOG[:8]), "another root of a full old tree"),
    ]
    return [
        {
            "old_size": old,
            "new_size": new,
            "old_root": b64(old_root),
            "new_root": b64(new_root),
            "path": [b64(node) for node in nodes],
            "why": why,
        }
        for old, new, old_root, new_root, nodes, why in bad
    ]


# ---- the deal-head map


def bit(deal_id, depth):
    return deal_id[depth // 8] >> (7 - depth % 8) & 1


def entry_hash(entry):
    deal_id, version, position, link = entry
    return sha256(b"\x00", deal_id, version.to_bytes(8, "big"), position.to_bytes(8, "big"), link)


def head_root(entries, depth=0):
    if not entries:
        return ZERO
    if len(entries) == 1:
        return entry_hash(entries[0])
    sides = [[entry for entry in entries if bit(entry[0], depth) == side] for side in (0, 1)]
    return sha256(b"\x01", *(head_root(side, depth + 1) for side in sides))


def head_path(deal_id, entries, depth=0):
    if len(entries) == 1:
        return []
    sides = [[entry for entry in entries if bit(entry[0], depth) == side] for side in (0, 1)]
    own = bit(deal_id, depth)
    return [head_root(sides[1 - own], depth + 1)] + head_path(deal_id, sides[own], depth + 1)


def deals(count):
    """`count` heads at distinct positions; deal i has i + 1 records."""
    return [
        (sha256(f"tribunal deal {i}".encode()), i + 1, 10 * (i + 1), sha256(f"tribunal link {i}".encode()))
        for i in range(count)
    ]


def neighbours(differ_at):
    """Two deals whose ids agree in every bit before `differ_at` and in every bit after it."""
    low = sha256(b"tribunal neighbours")
    flipped = bytearray(low)
    flipped[differ_at // 8] ^= 1 << (7 - differ_at % 8)
    return [(low, 3, 30, sha256(b"low")), (bytes(flipped), 2**64 - 1, 2**63, sha256(b"high"))]


def head_vectors():
    maps = [(f"{count} deals", deals(count)) for count in (0, 1, 2, 3, 50)]
    maps += [(f"ids differ in bit {at}", neighbours(at)) for at in (0, 1, 7, 8, 100, 255)]
    maps.append(("50 deals and two that differ in the last bit", deals(50) + neighbours(255)))
    maps.append(("ids of all zeros and all ones", [(ZERO, 1, 1, ZERO), (b"\xff" * 32, 1, 2, b"\xff" * 32)]))
    written = []
    for name, entries in maps:
        proved = entries if len(entries) <= 3 else [entries[0], entries[17], *entries[-2:]]
        written.append(
            {
                "name": name,
                "root": b64(head_root(entries)),
                "entries": [entry_json(entry) for entry in entries],
                "proofs": [
                    {"deal_id": hexed(entry[0]), "path": [b64(node) for node in head_path(entry[0], entries)]}
                    for entry in proved
                ],
            }
        )
    return {"maps": written, "bad_proofs": bad_heads()}


def entry_json(entry):
    return {"deal_id": hexed(entry[0]), "version": entry[1], "position": entry[2], "link": hexed(entry[3])}


def bad_heads():
    entries = deals(50)
    tree = head_root(entries)
    deal_id, version, position, link = entries[17]
    nodes = head_path(deal_id, entries)
    good = (deal_id, version, position, link)
    alone = deals(1)[0]
    bad = [
        (tree, (deal_id, version + 1, position, link), nodes, "another version"),
        (tree, (deal_id, version, position + 1, link), nodes, "another position"),
        (tree, (deal_id, version, position, ZERO), nodes, "another link"),
        (tree, (entries[18][0], version, position, link), nodes, "another deal"),
        (tree, good, nodes[:-1], "last sibling is missing"),
        (tree, good, nodes[1:], "first sibling is missing"),
        (tree, good, nodes + [ZERO], "a sibling too many"),
        (tree, good, nodes[::-1], "siblings the other way round"),
        (tree, good, [], "no siblings"),
        (tree, good, nodes * 60, "more siblings than bits"),
        (entry_hash(alone), alone, [ZERO], "a map of one deal has no siblings"),
        (sha256(b"\x01", entry_hash(alone), ZERO), alone, [ZERO], "a deal alone under a node"),
        (ZERO, alone, [], "an empty map holds nothing"),
    ]
    return [
        {"root": b64(tree), "entry": entry_json(entry), "path": [b64(node) for node in nodes], "why": why}
        for tree, entry, nodes, why in bad
    ]


# ---- checkpoints and the certificate of the log's key


def public(secret):
    return secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def key_id(origin, public_key):
    return sha256(origin.encode(), NEWLINE, b"\x01", public_key)[:4]


def vkey(origin, public_key):
    return f"{origin}+{key_id(origin, public_key).hex()}+{b64(bytes([1]) + public_key)}"


def checkpoint_text(origin, size, tree, count, heads):
    return f"{origin}\n{size}\n{b64(tree)}\nheads/1 {count} {b64(heads)}\n"


def signed(text, secret, origin=ORIGIN, id_bytes=None):
    public_key = public(secret)
    signature = secret.sign(text.encode())
    return f"{text}\n\u2014 {origin} {b64((id_bytes or key_id(origin, public_key)) + signature)}\n"


def keccak256(*parts):
    return keccak.new(digest_bits=256, data=b"".join(parts)).digest()


def certificate(origin, public_key, operator):
    """EIP-712 LogKey in the domain without a chain."""
    domain = keccak256(
        keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
        keccak256(b"Tribunal"),
        keccak256(b"1"),
        bytes(64),
    )
    struct = keccak256(keccak256(b"LogKey(string origin,bytes32 publicKey)"), keccak256(origin.encode()), public_key)
    signature = operator.sign_recoverable(keccak256(b"\x19\x01", domain, struct), hasher=None)
    account = keccak256(operator.public_key.format(compressed=False)[1:])[12:]
    return {
        "vkey": vkey(origin, public_key),
        "operator": hexed(account),
        "signature": hexed(signature[:64] + bytes([27 + signature[64]])),
    }


def checkpoint_vectors():
    seed = sha256(b"tribunal log key")
    secret = Ed25519PrivateKey.from_private_bytes(seed)
    public_key = public(secret)
    operator = coincurve.PrivateKey(sha256(b"tribunal operator"))
    checkpoints = []
    for size, count in ((0, 0), (1, 1), (257, 3), (1000, 50)):
        tree, heads = root(LOG[:size]), head_root(deals(count))
        text = checkpoint_text(ORIGIN, size, tree, count, heads)
        checkpoints.append(
            {
                "tree_size": size,
                "root": b64(tree),
                "deals": count,
                "heads_root": b64(heads),
                "text": text,
                "note": signed(text, secret),
            }
        )
    return {
        "origin": ORIGIN,
        "secret_key": hexed(seed),
        "public_key": hexed(public_key),
        "vkey": vkey(ORIGIN, public_key),
        "certificate": certificate(ORIGIN, public_key, operator),
        "checkpoints": checkpoints,
        "bad_notes": bad_notes(secret),
        "bad_vkeys": bad_vkeys(public_key),
    }


def bad_notes(secret):
    tree, heads = b64(root(LOG[:257])), b64(head_root(deals(3)))
    text = f"{ORIGIN}\n257\n{tree}\nheads/1 3 {heads}\n"
    good = signed(text, secret)
    other = Ed25519PrivateKey.from_private_bytes(sha256(b"another key"))
    bad = [
        (signed(text, other), "signed by another key"),
        (signed(text, other, id_bytes=key_id(ORIGIN, public(secret))), "signed by another key under this key's id"),
        (signed(text, secret, id_bytes=bytes(4)), "another key id"),
        (signed(text, secret, origin="log.example/other"), "signed under another name"),
        (signed(text.replace(ORIGIN, "log.example/other"), secret), "of another log"),
        (good.replace("\n257\n", "\n258\n"), "another size than was signed"),
        (good.replace("heads/1 3", "heads/1 4"), "another number of deals than was signed"),
        (signed(text.replace("\n257\n", "\n0257\n"), secret), "size with a leading zero"),
        (signed(text.replace("\n257\n", "\n-1\n"), secret), "size below zero"),
        (signed(text.replace("\n257\n", "\n18446744073709551616\n"), secret), "size beyond 64 bits"),
        (signed(text.replace(tree, tree[:-4]), secret), "root that is too short"),
        (signed(text.replace(tree, tree.rstrip("=")), secret), "root without padding"),
        (signed(f"{ORIGIN}\n257\n{tree}\n", secret), "no line of heads"),
        (signed(text.replace("heads/1", "heads/2"), secret), "heads of another version"),
        (signed(text.replace("heads/1 3 ", "heads/1  3 "), secret), "two spaces"),
        (text, "no signature"),
        (text + "\n", "no signature after the empty line"),
        (good.replace("\u2014", "-"), "signature line without its dash"),
        (good[:-1], "no newline at the end"),
        (good.replace("\n", "\r\n"), "lines ended as on Windows"),
        ("", "nothing"),
    ]
    return [{"note": note, "why": why} for note, why in bad]


def bad_vkeys(public_key):
    def vkey_of(name, algorithm, key, id_bytes=None):
        tagged = bytes([algorithm]) + key
        return f"{name}+{(id_bytes or sha256(name.encode(), NEWLINE, tagged)[:4]).hex()}+{b64(tagged)}"

    bad = [
        (vkey_of(ORIGIN, 1, public_key, bytes(4)), "another key id"),
        (vkey_of("log.example/other", 1, public_key, key_id(ORIGIN, public_key)), "key id of another name"),
        (vkey_of(ORIGIN, 1, public_key[:31]), "key of 31 bytes"),
        (vkey_of(ORIGIN, 2, public_key), "another algorithm"),
        (vkey_of(ORIGIN, 1, public_key).rsplit("+", 1)[0], "no key"),
        (vkey_of("", 1, public_key), "no name"),
        ("", "nothing"),
    ]
    return [{"vkey": text, "why": why} for text, why in bad]


# ---- files


def main(arguments):
    check = arguments[:1] == ["--check"]
    folder = pathlib.Path(arguments[-1])
    stale = []
    for name, content in (
        ("tree.json", tree_vectors()),
        ("heads.json", head_vectors()),
        ("checkpoint.json", checkpoint_vectors()),
    ):
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        file = folder / name
        if not check:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            stale.append(name)
    if stale:
        sys.exit(f"stale: {', '.join(stale)}")


if __name__ == "__main__":
    main(sys.argv[1:])
