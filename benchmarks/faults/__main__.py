"""Plant every fault, check every good fit, and say what was found: ``python -m benchmarks.faults``.

Writes a line of JSON for each case to ``benchmarks/faults/found.jsonl`` as it goes, so that a run
that was stopped goes on where it was, and ends with the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import ppl_gen as pg
from benchmarks.faults.planted import FAULTS
from benchmarks.faults.stories import TALES, Case

FOUND = Path(__file__).parent / "found.jsonl"
BUDGET = 30.0


def judged(case: Case, seed: int) -> dict[str, Any]:
    """Every row of the verdict, and how long it took."""
    begun = time.perf_counter()
    verdict = pg.check(
        case.run,
        case.test,
        train=case.train,
        level="full",
        seed=seed,
        progress=False,
        budget=BUDGET,
    )
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "fit": round(case.run.history[-1].seconds, 1),
        "findings": {f.check: [f.status, f.figure, f.meaning] for f in verdict.findings},
    }


def work(seeds: int, good: int, only: str) -> Iterable[tuple[str, str, int]]:
    """Kind, name and seed of every case."""
    for name in FAULTS:
        if only in name:
            for seed in range(seeds):
                yield "fault", name, seed
    for number in range(good):
        tale = list(TALES)[number % len(TALES)]
        if only in f"good {tale}":
            yield "good", tale, 100 + number


def main() -> None:
    """Run what is left to run, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of each fault")
    parser.add_argument("--good", type=int, default=100, help="good fits, over all stories")
    parser.add_argument("--only", default="", help="cases whose names hold this")
    parser.add_argument("--out", type=Path, default=FOUND)
    options = parser.parse_args()
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {(r["kind"], r["name"], r["seed"]): r for r in map(json.loads, lines)}
    for kind, name, seed in work(options.seeds, options.good, options.only):
        if (kind, name, seed) in done:
            continue
        torch.manual_seed(seed)
        try:
            case = FAULTS[name].plant(seed) if kind == "fault" else TALES[name].case(seed)
            found = judged(case, seed)
        except pg.FitError as error:  # the fit itself says that it cannot be
            found = {"seconds": 0.0, "fit": 0.0, "findings": {"fit": ["fail", 1.0, str(error)]}}
        record = {"kind": kind, "name": name, "seed": seed, **found}
        done[kind, name, seed] = record
        with options.out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        fails = [c for c, f in record["findings"].items() if f[0] == "fail"]
        print(f"{kind} {name} {seed}: {', '.join(fails) or 'no fail'}  {record['seconds']} s")
    print(tables(list(done.values())))


def tables(records: list[dict[str, Any]]) -> str:
    """Of each fault how often it was found and by what; of each check how often it cried wolf."""
    lines = ["| fault | found | by the check that should | all that failed |", "|---|---|---|---|"]
    total = found = right = 0
    for name, fault in FAULTS.items():
        of = [r for r in records if r["kind"] == "fault" and r["name"] == name]
        if not of:
            continue
        failed = [{c for c, f in r["findings"].items() if f[0] == "fail"} for r in of]
        any_failed = sum(map(bool, failed))
        by_right = sum(bool(f & set(fault.found_by)) for f in failed)
        total, found, right = total + len(of), found + any_failed, right + by_right
        named = {c: sum(c in f for f in failed) for f in failed for c in f}
        by = ", ".join(f"{c} {n}" for c, n in sorted(named.items(), key=lambda i: -i[1]))
        lines.append(f"| {name} | {any_failed}/{len(of)} | {by_right}/{len(of)} | {by} |")
    lines += ["", f"Found {found} of {total}, {right} by a check that should.", ""]
    good = [r for r in records if r["kind"] == "good"]
    if good:
        wolf = [r for r in good if any(f[0] == "fail" for f in r["findings"].values())]
        warned = [r for r in good if any(f[0] == "warn" for f in r["findings"].values())]
        lines.append(f"Of {len(good)} good fits {len(wolf)} have a fail, {len(warned)} a warning.")
        lines += [
            "",
            "| check | faults failed | of those it should | good: fail | warn | pass | not made |",
            "|---|---|---|---|---|---|---|",
        ]
        for check in sorted({c for r in good for c in r["findings"]}):
            statuses = [r["findings"][check][0] for r in good if check in r["findings"]]
            n = {s: statuses.count(s) for s in ("fail", "warn", "pass")}
            rest = len(statuses) - sum(n.values())
            power = f"{_failed(records, check)} | {_failed(records, check, only_named=True)}"
            lines.append(
                f"| {check} | {power} | {n['fail']} | {n['warn']} | {n['pass']} | {rest} |"
            )
    return "\n".join(lines)


def _failed(records: list[dict[str, Any]], check: str, only_named: bool = False) -> str:
    """In how many faulty cases a check fails, or in how many of those in which it should."""
    faulty = [r for r in records if r["kind"] == "fault"]
    if only_named:
        faulty = [r for r in faulty if check in FAULTS[r["name"]].found_by]
    fails = sum(r["findings"].get(check, ["none"])[0] == "fail" for r in faulty)
    return f"{fails}/{len(faulty)}" if faulty else ""


if __name__ == "__main__":
    main()
