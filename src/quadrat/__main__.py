"""``python -m quadrat`` is the command ``quadrat``."""

import sys

from quadrat.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
