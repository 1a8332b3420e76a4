"""``python -m orchestrator.cli``: how the supervisor starts its children, whatever PATH says."""

import sys

from orchestrator.cli import main

sys.exit(main())
