"""Keys and credentials for nats-server, from the format's documentation: nkeys, JWTs of operator, accounts and users.

    python nats_jwt.py FOLDER

writes new ones for the accounts of engine/packaging/nats/accounts.conf:

    nkeys.conf       the names that accounts.conf asks for, NAME_NKEY: public key
    <user>.nk        the seed to each of them
    operator.conf    the same accounts as JWTs, for a server that trusts an operator instead of a list of nkeys
    <user>.creds     a user's JWT and seed
    stranger.*       of a user that neither of the two knows
"""

import base64
import hashlib
import json
import os
import sys
import time

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# First letters of public keys; a seed begins with S and the letter.
KINDS = {"operator": "O", "account": "A", "user": "U"}
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

USERS = ["sys", "engine", "verifier", "worker", "alice", "bob"]
PARTIES = ["alice", "bob"]

FETCH = "fetch.receipts.*.*"
RECEIPT = "$JS.API.DIRECT.GET.RECEIPTS.receipts."
QUARTER_HOUR_NS = 15 * 60 * 10**9


def crc16(data):
    """CRC-16/XMODEM."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def base32(data):
    return base64.b32encode(data).rstrip(b"=").decode()


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An Ed25519 key as nkeys write it: five bits of kind, 32 bytes, CRC-16 in little endian, all in base32."""

    def __init__(self, kind):
        raw = os.urandom(32)
        self.private = Ed25519PrivateKey.from_private_bytes(raw)
        letter = ALPHABET.index(KINDS[kind])
        # The seed's prefix is ten bits: "S" and the kind.
        prefix = ALPHABET.index("S") << 11 | letter << 6
        self.seed = self.text(prefix.to_bytes(2, "big") + raw)
        self.public = self.text(bytes([letter << 3]) + self.private.public_key().public_bytes_raw())

    @staticmethod
    def text(data):
        return base32(data + crc16(data).to_bytes(2, "little"))


def jwt(issuer, subject, name, claims):
    """A JWT that `issuer` signed for the key `subject`."""
    body = {"iat": int(time.time()), "iss": issuer.public, "jti": "", "name": name, "nats": claims, "sub": subject.public}
    compact = lambda value: json.dumps(value, separators=(",", ":")).encode()
    body["jti"] = base32(hashlib.new("sha512_256", compact(body)).digest())
    signed = base64url(compact({"typ": "JWT", "alg": "ed25519-nkey"})) + "." + base64url(compact(body))
    return signed + "." + base64url(issuer.private.sign(signed.encode()))


def account(jetstream=False, exports=(), imports=(), mappings=None):
    """Claims of an account. Without room for it there is no JetStream."""
    room = -1 if jetstream else 0
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1, "leaf": -1}
    limits |= {"mem_storage": room, "disk_storage": room, "streams": room, "consumer": room}
    return {
        "exports": list(exports),
        "imports": list(imports),
        "mappings": {name: [{"subject": to, "weight": 100}] for name, to in (mappings or {}).items()},
        "limits": limits,
        "default_permissions": {"pub": {}, "sub": {}},
        "type": "account",
        "version": 2,
    }


def user(publish=None, subscribe=None, answers=False):
    """Claims of a user. Lists are what is allowed; None is everything."""
    allowed = lambda subjects: {} if subjects is None else {"allow": subjects} if subjects else {"deny": [">"]}
    claims = {"pub": allowed(publish), "sub": allowed(subscribe), "subs": -1, "data": -1, "payload": -1}
    if answers:
        claims["resp"] = {"max": 1, "ttl": QUARTER_HOUR_NS}
    return claims | {"type": "user", "version": 2}


def exported(subject, kind="service", **more):
    return {"name": subject, "subject": subject, "type": kind, **more}


def imported(exporter, subject, local=None, kind="service"):
    claims = {"name": subject, "subject": subject, "account": exporter.public, "type": kind}
    return claims | ({"local_subject": local} if local else {})


def creds(token, key):
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
    )


def layout():
    """The accounts of accounts.conf and their users: name, claims, {user: claims}."""
    keys = {name: Key("account") for name in ["SYS", "ENGINE", "WORKERS"] + [party.upper() for party in PARTIES]}
    engine = keys["ENGINE"]
    asked = ["STREAM.INFO.WORK", "CONSUMER.INFO.WORK.workers", "CONSUMER.MSG.NEXT.WORK.workers"]
    stream = {"response_type": "Stream"}
    exports = [exported("deals.*.*"), exported(FETCH), exported("tribunal.*", response_threshold=QUARTER_HOUR_NS)]
    exports += [exported("$JS.API." + name, **(stream if "NEXT" in name else {})) for name in asked]
    exports += [exported("$JS.ACK.WORK.workers.>"), exported("results.*")]
    exports += [exported("verifiers.*", response_threshold=QUARTER_HOUR_NS), exported("cancel.work", "stream")]
    party_imports = [
        imported(engine, "deals.*.*"),
        imported(engine, FETCH, RECEIPT + "$1.$2"),
        imported(engine, "tribunal.*"),
    ]
    worker_imports = [imported(engine, "$JS.API." + name, "engine." + name) for name in asked]
    others = ["$JS.ACK.WORK.workers.>", "results.*", "verifiers.*"]
    worker_imports += [imported(engine, name) for name in others]
    worker_imports.append(imported(engine, "cancel.work", kind="stream"))
    mappings = {FETCH: RECEIPT + "{{split(1,*)}}.{{split(2,*)}}"}
    accounts = {
        "SYS": (account(), {"sys": user()}),
        "ENGINE": (
            account(True, exports, mappings=mappings),
            {"engine": user(), "verifier": user([], ["verifiers.example"], answers=True)},
        ),
        "WORKERS": (
            account(imports=worker_imports, mappings={"$JS.API." + name: "engine." + name for name in asked}),
            {"worker": user(["engine." + name for name in asked] + others, ["_INBOX.>", "cancel.work"])},
        ),
    }
    for party in PARTIES:
        may = user(["deals.*.*", RECEIPT + "*.*", "tribunal.*"], ["_INBOX.>", "receipts.*.*"])
        accounts[party.upper()] = (account(imports=party_imports), {party: may})
    return keys, accounts


def main(folder):
    os.makedirs(folder, exist_ok=True)

    def write(name, text):
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)

    nkeys = {name: Key("user") for name in USERS}
    write("nkeys.conf", "".join(f"{name.upper()}_NKEY: {key.public}\n" for name, key in nkeys.items()))
    for name, key in {**nkeys, "stranger": Key("user")}.items():
        write(name + ".nk", key.seed + "\n")

    operator, (keys, accounts) = Key("operator"), layout()
    claims = {"system_account": keys["SYS"].public, "type": "operator", "version": 2}
    lines = [f"operator: {jwt(operator, operator, 'tribunal', claims)}", "resolver: MEMORY", "resolver_preload: {"]
    for name, (claims, users) in accounts.items():
        lines.append(f"  {keys[name].public}: {jwt(operator, keys[name], name, claims)}")
        for user_name, claims in users.items():
            key = Key("user")
            write(user_name + ".creds", creds(jwt(keys[name], key, user_name, claims), key))
    write("operator.conf", "\n".join(lines) + "\n}\n")
    # An account that calls itself ENGINE, and no operator of ours has signed.
    key = Key("user")
    write("stranger.creds", creds(jwt(Key("account"), key, "engine", user()), key))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: nats_jwt.py FOLDER")
    main(sys.argv[1])
