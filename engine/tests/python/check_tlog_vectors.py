"""Holds the verifier's trees, maps and checkpoints against the vectors: check_tlog_vectors.py FOLDER."""

import json
import pathlib
import sys

from hashing import Domain, Unsound, unbase64, unhexed
from transparency import Checkpoint, LogKey, is_consistent, leaf_hash, root_of_head, root_of_inclusion


def hashes(texts):
    return [unbase64(text, 32) for text in texts]


def included(case, root):
    leaf = unbase64(case["leaf_hash"], 32)
    return root_of_inclusion(case["index"], case["size"], leaf, hashes(case["path"])) == unbase64(root, 32)


def consistent(case):
    roots = hashes([case["old_root"], case["new_root"]])
    return is_consistent(case["old_size"], case["new_size"], *roots, hashes(case["path"]))


def headed(entry, path, root):
    deal_id, link = unhexed(entry["deal_id"], 32), unhexed(entry["link"], 32)
    return root_of_head(deal_id, entry["version"], entry["position"], link, hashes(path)) == unbase64(root, 32)


def accepted(parse):
    try:
        return parse()
    except Unsound:
        return None


def wrong(folder):
    """What is taken and should not be, or the other way round."""
    tree, heads, notes = (
        json.loads((folder / name).read_text()) for name in ("tree.json", "heads.json", "checkpoint.json")
    )
    roots = {case["size"]: case["root"] for case in tree["trees"]}
    assert unbase64(roots[1]) == leaf_hash(b"")
    for case in tree["inclusion"]:
        if not included(case, roots[case["size"]]):
            yield f"inclusion of {case['index']} in {case['size']}"
    for case in tree["consistency"]:
        if not consistent(case):
            yield f"consistency of {case['old_size']} with {case['new_size']}"
    yield from (case["why"] for case in tree["bad_inclusion"] if included(case, case["root"]))
    yield from (case["why"] for case in tree["bad_consistency"] if consistent(case))
    for heads_map in heads["maps"]:
        entries = {entry["deal_id"]: entry for entry in heads_map["entries"]}
        for proof in heads_map["proofs"]:
            if not headed(entries[proof["deal_id"]], proof["path"], heads_map["root"]):
                yield f"{heads_map['name']}: {proof['deal_id']}"
    yield from (case["why"] for case in heads["bad_proofs"] if headed(case["entry"], case["path"], case["root"]))
    key = LogKey(notes["vkey"])
    for case in notes["checkpoints"]:
        found = accepted(lambda case=case: Checkpoint(case["note"].encode(), key))
        if not found or (found.size, found.deals) != (case["tree_size"], case["deals"]):
            yield f"checkpoint of {case['tree_size']}"
    yield from (
        case["why"] for case in notes["bad_notes"] if accepted(lambda case=case: Checkpoint(case["note"].encode(), key))
    )
    yield from (case["why"] for case in notes["bad_vkeys"] if accepted(lambda case=case: LogKey(case["vkey"])))
    certificate = notes["certificate"]
    signer = Domain().signer(unhexed(certificate["signature"], 65), key.certificate_hash())
    if signer != unhexed(certificate["operator"], 20):
        yield "certificate"


if __name__ == "__main__":
    found = list(wrong(pathlib.Path(sys.argv[1])))
    sys.exit("\n".join(found) if found else 0)
