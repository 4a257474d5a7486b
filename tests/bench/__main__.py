"""Measure and print JSON: `python -m tests.bench [NAME...] [--json FILE]`, or `make bench ARGS="depth backlogs"`.

Without names, all. Runs on REPROQ_TEST_DSN (a superuser's DSN), else on an embedded PostgreSQL with its default,
durable settings. Exit status 1 when a bound is missed. Ratios are the result: seconds depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import calls, claims, clients, executors, flow, idle, notifying, workers
from tests.bench.measuring import Bench, Report
from tests.bench.server import bench_server, circumstances

BENCHES: dict[str, Callable[[Bench], Report]] = {
    "depth": claims.depth,
    "backlogs": claims.backlogs,
    "priorities": claims.priorities,
    "dead_rows": claims.dead_rows,
    "claimers": flow.claimers,
    "pick_up": flow.pick_up,
    "costs": flow.costs,
    "single_calls": calls.single_calls,
    "idle_task": calls.idle_task,
    "enqueue": flow.enqueue,
    "notify": notifying.notify,
    "client": clients.client,
    "decorator": clients.decorator,
    "executors": executors.executors,
    "output": executors.output,
    "idle": idle.idle,
    "throughput": workers.throughput,
    "latency": workers.latency,
    "busy_key": workers.busy_key,
    "pinned_snapshot": workers.pinned_snapshot,
}


def main() -> int:
    """Run the named benches; 0 when all bounds hold."""
    options = _options()
    with bench_server() as server_dsn:
        result: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **circumstances(server_dsn)}
        result["benches"], missed = _run(server_dsn, options.names or list(BENCHES))
    result["missed"] = missed
    text = json.dumps(result, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    options = parser.parse_args()
    for name in options.names:
        if name not in BENCHES:
            parser.error(f"there is no bench {name}; there are {', '.join(BENCHES)}")
    return options


def _run(server_dsn: str, names: list[str]) -> tuple[dict[str, Any], list[str]]:
    reports: dict[str, Any] = {}
    missed = []
    bench = Bench(server_dsn)
    try:
        for name in names:
            started = time.monotonic()
            report = BENCHES[name](bench)
            seconds = round(time.monotonic() - started, 1)
            print(f"{name}: {'ok' if report.holds else 'MISSED'} ({seconds} s)", file=sys.stderr)
            reports[name] = {
                **report.numbers,
                "bounds": [{**asdict(bound), "holds": bound.holds} for bound in report.bounds],
                "seconds": seconds,
            }
            missed += [f"{name}: {bound.what} is {bound.value}" for bound in report.bounds if not bound.holds]
    finally:
        bench.close()
    return reports, missed


if __name__ == "__main__":
    sys.exit(main())
