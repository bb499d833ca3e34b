"""``python -m upsr_core.cli`` is the command ``upsr``."""

import sys

from .main import main

sys.exit(main())
