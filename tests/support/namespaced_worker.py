"""`reproq-listen` in the network namespace that REPROQ_TEST_NAMESPACE names; for `python -m`."""

import ctypes
import os
import sys

from reproq_listen.cli.main import main

_NETWORK = 0x40000000  # CLONE_NEWNET

if __name__ == "__main__":
    namespace = os.open(f"/run/netns/{os.environ['REPROQ_TEST_NAMESPACE']}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NETWORK) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(namespace)
    sys.exit(main())
