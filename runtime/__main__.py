"""``python -m iqrun``: the command line, for where scripts are not on the PATH."""

import sys

from iqrun.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
