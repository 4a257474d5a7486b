"""A worker with nothing but an executor: runs `family` tasks until it is killed.

usage: python -m tests.small_worker DIRECTORY COUNT
Writes its guard's pid to DIRECTORY/guard when all tasks have been started.
"""

import asyncio
import sys
from pathlib import Path

from tests.executing import executor, task


async def main(directory: Path, count: int) -> None:
    async with executor() as running:
        attempts = [await running.start(task("family", str(directory / str(n)))) for n in range(count)]
        note(directory / "guard", running.guard_pid)
        await asyncio.gather(*(attempt.wait() for attempt in attempts))


def note(path: Path, pid: int | None) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(str(pid))
    partial.rename(path)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
