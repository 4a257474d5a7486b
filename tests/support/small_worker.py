"""A worker with nothing but an executor: runs `family` tasks until it is killed.

usage: python -m tests.support.small_worker DIRECTORY COUNT MODE
Writes the pid of its guard to DIRECTORY/guard, and again when it has another one.
"""

import asyncio
import sys
from pathlib import Path

from tests.support.executing import MODE, executor, task


async def main(directory: Path, count: int) -> None:
    async with executor(warnings=[]) as running:
        for number in range(count):
            await running.start(task("family", str(directory / str(number))))
        guard = None
        while True:
            if running.guard_pid not in (None, guard):
                guard = running.guard_pid
                write(directory / "guard", guard)
            await asyncio.sleep(0.01)


def write(path: Path, pid: int | None) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(str(pid))
    partial.rename(path)


if __name__ == "__main__":
    MODE.set(sys.argv[3])
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
