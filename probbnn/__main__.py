"""``python -m probbnn`` is the command line."""

import sys

from probbnn.cli import main

sys.exit(main())
