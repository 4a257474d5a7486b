"""`python -m reproq_listen` is `reproq-listen`."""

import sys

from reproq_listen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
