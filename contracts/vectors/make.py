#!/usr/bin/env python3
"""Writes settlement.json: rows of settlement rule 1, straight from the table in the protocol.

Independent of the contracts and of the Rust code, which both check themselves against it. Amounts are decimal strings;
nets are what a party has more or less than before it locked anything.
"""
import json
import pathlib

ACCEPTED, VALID, INVALID, INCONCLUSIVE, AGREE_TIMEOUT, SUBMIT_TIMEOUT, JUDGE_TIMEOUT, MEDIATE_TIMEOUT, WITHDRAWN = range(1, 10)
FIXED, METERED = 1, 2


def settle(deal, outcome, voters):
    p_max, c = deal["paymentCollateral"], deal["resultsCollateral"]
    s, j, f = deal["submitCollateral"], deal["judgeCollateral"], deal["mediationFee"]
    p = deal["price"] if deal["pricing"] == FIXED else min(deal["price"] * deal["count"], p_max)
    fee = p * deal["feeBps"] // 10000
    v = c * deal["victimBps"] // 10000
    q = f // 4
    client, provider, pot, treasury = {
        ACCEPTED: (-p, p - fee, 0, fee),
        VALID: (-p - f, p - fee, f, fee),
        INVALID: (v, -c - f, f, c - v),
        INCONCLUSIVE: (-q, -q, 2 * q, 0),
        AGREE_TIMEOUT: (0, 0, 0, 0),
        SUBMIT_TIMEOUT: (s, -s, 0, 0),
        JUDGE_TIMEOUT: (-p - j, p + j - fee, 0, fee),
        MEDIATE_TIMEOUT: (0, 0, 0, 0),
        WITHDRAWN: (0, 0, 0, 0),
    }[outcome]
    mediators = pot // voters * voters if voters else 0
    treasury += pot - mediators
    assert client + provider + mediators + treasury == 0
    return {
        "client_net": str(client),
        "provider_net": str(provider),
        "mediators": str(mediators),
        "treasury": str(treasury),
    }


def deal(price, pricing, count, p_max, c, s, j, f, victim, fee):
    names = ["price", "pricing", "count", "paymentCollateral", "resultsCollateral", "submitCollateral",
             "judgeCollateral", "mediationFee", "victimBps", "feeBps"]
    return dict(zip(names, (price, pricing, count, p_max, c, s, j, f, victim, fee)))


def rows():
    plain = deal(1000, FIXED, 5, 1000, 2000, 50, 30, 100, 5000, 250)
    metered = deal(3, METERED, 301, 1000, 2001, 51, 31, 103, 3333, 333)
    capped = deal(7, METERED, 2**64 - 1, 999, 1000, 10, 10, 7, 10000, 1)
    free = deal(0, FIXED, 0, 0, 0, 0, 0, 0, 0, 0)
    large = deal(2**192 - 1, METERED, 2**64 - 1, 2**192 - 1, 2**192 - 1, 2**192 - 1, 2**192 - 1, 2**192 - 1, 9999, 9999)
    slack = deal(600, FIXED, 12, 1000, 500, 0, 0, 3, 1, 10000)
    panels = {VALID: (1, 2, 3, 7), INVALID: (0, 1, 3, 31), INCONCLUSIVE: (1, 3)}
    cases = [(it, outcome, voters) for it in (plain, metered)
             for outcome in range(1, 10) for voters in panels.get(outcome, (0,))]
    cases += [(it, outcome, panels.get(outcome, (0,))[-1]) for it in (capped, large)
              for outcome in (ACCEPTED, VALID, INVALID, INCONCLUSIVE, JUDGE_TIMEOUT)]
    cases += [(slack, outcome, panels.get(outcome, (0,))[0]) for outcome in (ACCEPTED, VALID, INVALID, JUDGE_TIMEOUT)]
    cases += [(free, VALID, 1), (free, SUBMIT_TIMEOUT, 0)]
    for it, outcome, voters in cases:
        texts = {name: str(value) for name, value in it.items()}
        yield texts | {"outcome": str(outcome), "voters": str(voters), "expect": settle(it, outcome, voters)}


if __name__ == "__main__":
    path = pathlib.Path(__file__).with_name("settlement.json")
    path.write_text(json.dumps(list(rows()), indent=1) + "\n")
    print(f"{path.name}: {len(list(rows()))} rows")
