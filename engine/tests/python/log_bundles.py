"""Makes bundles of format 2 out of those of format 1: a log over all of them, its checkpoint and their proofs.

    log_bundles.py OUT FILE...

The files are of one store, whose operator is the development key "operator". Positions that none of them holds get a
leaf of their own, as another deal's record would. Written with the recursion of `make_tlog_vectors.py`: a second hand
at the format. Same deals, same key and same checkpoint must give the engine's own bytes.
"""

import json
import pathlib
import sys

import coincurve
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import make_tlog_vectors as vectors
from hashing import compact, derive_key
from messages import Record
from verify_bundle import sections_of

OPERATOR = coincurve.PrivateKey(derive_key("tribunal fixtures key", b"operator"))
LOG = Ed25519PrivateKey.from_private_bytes(vectors.sha256(b"tribunal log key"))


def bundle(number, sections):
    """The file of these sections, by the format's documentation."""
    names = sorted(sections)
    lines = [f"{blake3(sections[name]).hexdigest()} {len(sections[name])} {name}\n" for name in names]
    head = f"tribunal-bundle {number}\n{''.join(lines)}\n".encode()
    body = head + b"".join(sections[name] for name in names)
    return body + derive_key("tribunal.v1 bundle", body)


def logged(files):
    """The files in format 2, all under one checkpoint."""
    deals = {
        name: [Record(data) for key, data in read.items() if key.startswith("record/")] for name, read in files.items()
    }
    by_position = {record.position: record.frame for records in deals.values() for record in records}
    leaves = [by_position.get(at, f"record {at}".encode()) for at in range(1, max(by_position) + 1)]
    heads = [
        (last.deal_id, last.version, last.position, last.link) for last in (records[-1] for records in deals.values())
    ]
    tree = vectors.root(leaves)
    text = vectors.checkpoint_text(vectors.ORIGIN, len(leaves), tree, len(heads), vectors.head_root(heads))
    note = vectors.signed(text, LOG).encode()
    certificate = compact(vectors.certificate(vectors.ORIGIN, vectors.public(LOG), OPERATOR))
    for name, records in deals.items():
        proofs = {
            "tree_size": len(leaves),
            "inclusion": [encoded(vectors.path(record.position - 1, leaves)) for record in records],
            "head": encoded(vectors.head_path(records[0].deal_id, heads)),
        }
        added = {"checkpoint": note, "log-key.json": certificate, "proofs.json": compact(proofs)}
        yield name, bundle(2, files[name] | added)


def encoded(path):
    return [vectors.b64(node) for node in path]


def main(out, names):
    files = {pathlib.Path(name).name: sections_of(pathlib.Path(name).read_bytes())[1] for name in names}
    out.mkdir(parents=True, exist_ok=True)
    for name, data in logged(files):
        (out / name).write_bytes(data)
    print(json.dumps({"files": len(files), "vkey": vectors.vkey(vectors.ORIGIN, vectors.public(LOG))}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2:])
