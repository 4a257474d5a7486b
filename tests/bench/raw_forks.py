"""How fast this process can be forked and waited for, once it is as large as the template: the floor of `fork`.

usage: python -m tests.bench.raw_forks SECONDS MODULE...     prints forks a second, and the size of the process
"""

import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Import, freeze, and fork one after another."""
    seconds = float(sys.argv[1])
    gc.disable()
    if os.environ.get("DJANGO_SETTINGS_MODULE"):
        importlib.import_module("django").setup()
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.freeze()
    count = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.wait4(pid, 0)
        count += 1
    rate = count / (time.monotonic() - began)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(json.dumps({"rate": rate, "rss_bytes": pages * os.sysconf("SC_PAGE_SIZE")}))


if __name__ == "__main__":
    main()
