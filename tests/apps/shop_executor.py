"""An executor of a shop that knows nothing of us: the contract's command line, one object on stdout, a status."""

import json
import sys
from typing import Any


def perform(spec: dict[str, Any]) -> object:
    name, args = spec["task_path"].rpartition(".")[2], spec["args"]
    match name:
        case "add":
            return sum(args)
        case "later":
            return 2 * args[0]
        case "ship":
            return args[0]["model"] + args[0]["pk"]
        case "staged":
            return spec["takes_context"]
        case "total":
            return "all done"
    raise ValueError("boom on purpose")


def main() -> int:
    assert sys.argv[1:5:2] == ["--result-id", "--attempt"]
    assert sys.argv[5:] == ["--payload-stdin"]
    try:
        print(json.dumps({"ok": True, "return": perform(json.load(sys.stdin))}))
    except Exception as error:  # noqa: BLE001 - every failure is an envelope
        error_fields = {"exception_class": type(error).__name__, "message": str(error), "traceback": "..."}
        print(json.dumps({"ok": False, **error_fields}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
