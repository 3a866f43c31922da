"""`python -m benchmarks.compare`."""

import sys

from . import main

sys.exit(main())
