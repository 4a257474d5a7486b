"""The program that runs one task: `python -m reproq_listen.executor`.

Its name is part of the contract with supervisors. The code is in `reproq_listen.child.runner`.
"""

import sys

from reproq_listen.child.runner import allowed_modules as allowed_modules
from reproq_listen.child.runner import main as main
from reproq_listen.child.runner import main_forked as main_forked
from reproq_listen.child.runner import warm_up as warm_up

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
