"""An executor that is not ours: it knows the contract's command line and stdout, and nothing else.

The payload's kwargs say how it behaves: `say` (text, each character one byte) goes to stdout, `times` over;
`to_stderr` likewise; `read` false leaves stdin alone (then the behaviour comes from FOREIGN_SAY); `status` is
its exit status; `signal` is sent to itself.
"""

import json
import os
import sys


def main() -> int:
    if "FOREIGN_SAY" in os.environ:
        os.write(1, os.environ["FOREIGN_SAY"].encode())
        return 0
    if "--payload-stdin" in sys.argv:
        text = sys.stdin.read()
    elif "--payload-file" in sys.argv:
        path = sys.argv[sys.argv.index("--payload-file") + 1]
        with open(path, encoding="utf-8") as file:
            text = file.read()
    else:
        text = sys.argv[sys.argv.index("--payload-json") + 1]
    kwargs = json.loads(text)["kwargs"]
    sys.stderr.buffer.write(kwargs.get("to_stderr", "").encode("latin-1"))
    sys.stderr.flush()
    data = kwargs.get("say", "").encode("latin-1")
    for _ in range(kwargs.get("times", 1)):
        sys.stdout.buffer.write(data)
    sys.stdout.flush()
    if "signal" in kwargs:
        os.kill(os.getpid(), kwargs["signal"])
    return int(kwargs.get("status", 0))


if __name__ == "__main__":
    sys.exit(main())
