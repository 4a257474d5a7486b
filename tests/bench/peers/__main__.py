"""Measure reproq-listen next to pgqueuer, procrastinate and celery: `make bench-peers ARGS="[MEASURE...]"`.

Without names: throughput, pick_up, enqueue. `plot` measures the rate at depths and numbers of workers and draws it.
All use one PostgreSQL server, interleaved: REPROQ_TEST_DSN's, else an embedded one with durable defaults. Celery uses a
Redis of its own and is left out where redis-server is not installed. Prints JSON, and a table on stderr. Exit status 1
when a bound is missed. A first look in a minute: ARGS="--rounds 1 --seconds 0.3 --tasks 60".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.measuring import Report
from tests.bench.peers import measures
from tests.bench.peers.running import Program, TimeReceiver, a_redis, running
from tests.bench.peers.tables import table
from tests.bench.peers.variants import BY_NAME, PEERS_PYTHON
from tests.bench.server import bench_server, circumstances
from tests.support.database import ROOT

MEASURES = ("throughput", "pick_up", "enqueue", "plot")
ONE_OF_EACH = ("pool", "fork 4", "pgqueuer", "procrastinate", "celery")
DURABLE = ("fsync", "synchronous_commit", "full_page_writes")
PRODUCERS = ("pool", "pgqueuer", "procrastinate", "celery")


def main() -> int:
    """Run the measures; 0 when all bounds hold."""
    options = _options()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        server_dsn = stack.enter_context(bench_server())
        redis = stack.enter_context(a_redis(folder, options.redis_fsync))
        if redis is None:
            print("redis-server is not installed (Debian: apt-get install redis-server): no celery", file=sys.stderr)
        names = [name for name in options.variants or BY_NAME if name != "celery" or redis]
        programs = [stack.enter_context(running(server_dsn, BY_NAME[name])) for name in names]
        receiver = TimeReceiver(folder)
        stack.callback(receiver.close)
        result: dict[str, Any] = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **circumstances(server_dsn)}
        result["versions"] |= {"redis-server": redis}
        result["settings"] |= {"appendfsync of redis": options.redis_fsync}
        result["warnings"] = _warnings(result, options)
        result["sizes"] = {"rounds": options.rounds, "seconds": options.seconds, "tasks": options.tasks}
        result["programs"] = {
            one.variant.name: {"settings": one.variant.settings, "versions": one.versions} for one in programs
        }
        result["measures"] = _run(programs, receiver, options)
    result["missed"] = [
        bound for found in result["measures"].values() for bound in found["bounds"] if not bound["holds"]
    ]
    _write(result, options)
    return 1 if result["missed"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(MEASURES))
    parser.add_argument("--variants", nargs="+", choices=BY_NAME, metavar="NAME", help=", ".join(BY_NAME))
    parser.add_argument("--rounds", type=int, default=5, help="rounds of throughput, enqueue and plot")
    parser.add_argument("--seconds", type=float, default=2, help="about what one measurement of a rate takes")
    parser.add_argument("--tasks", type=int, default=300, help="tasks of pick_up, and of each round of enqueue")
    parser.add_argument("--depths", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="of plot")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="of plot")
    parser.add_argument(
        "--redis-fsync", choices=("always", "everysec", "no"), default="always", help="as durable as ours: always"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there, too")
    parser.add_argument("--png", type=Path, default=ROOT / "build" / "bench-peers.png", help="where plot draws")
    options = parser.parse_args()
    for name in options.measures:
        if name not in MEASURES:
            parser.error(f"there is no measure {name}; there are {', '.join(MEASURES)}")
    options.measures = options.measures or list(MEASURES[:-1])
    return options


def _warnings(result: dict[str, Any], options: argparse.Namespace) -> list[str]:
    """What makes the numbers unfair."""
    found = []
    if result["machine"]["load"] > 1:
        found.append(
            f"load {result['machine']['load']:.1f}: other programs run. The scheduler shares the processors by process,"
            " so a program of several processes gets more of them than one of one process. No ratio is fair."
        )
    found += [f"{name} is {result['settings'][name]}" for name in DURABLE if result["settings"][name] != "on"]
    if options.redis_fsync != "always":
        found.append(f"Redis has appendfsync {options.redis_fsync}: celery is less durable than the others")
    return found


def _run(programs: list[Program], receiver: TimeReceiver, options: argparse.Namespace) -> dict[str, Any]:
    each = [one for one in programs if one.variant.name in ONE_OF_EACH]
    producers = [one for one in programs if one.variant.name in PRODUCERS]
    rounds, seconds = options.rounds, options.seconds
    found: dict[str, Report] = {}
    for name in options.measures:
        print(f"{name} ...", file=sys.stderr)
        if name == "throughput":
            found[name] = measures.throughput(programs, receiver, rounds, seconds)
        elif name == "pick_up":
            found[name] = measures.pick_up(each, receiver, options.tasks)
        elif name == "enqueue":
            found[name] = measures.enqueue(producers, rounds, options.tasks)
        else:
            found[name] = Report({
                "depth": measures.depths(each, receiver, rounds, seconds, options.depths),
                "workers": measures.workers(each, receiver, rounds, seconds, options.workers),
            })  # fmt: skip
    return {
        name: {**report.numbers, "bounds": [{**asdict(bound), "holds": bound.holds} for bound in report.bounds]}
        for name, report in found.items()
    }


def _write(result: dict[str, Any], options: argparse.Namespace) -> None:
    text = json.dumps(result, indent=2)
    print(text)
    print(table(result), file=sys.stderr)
    if options.json:
        options.json.write_text(text + "\n")
    if "plot" in result["measures"]:
        options.png.parent.mkdir(parents=True, exist_ok=True)
        command = [PEERS_PYTHON, "-m", "tests.bench.peers.plot", str(options.png)]
        subprocess.run(command, cwd=ROOT, input=text, text=True, check=True)
        print(f"drawn: {options.png}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
