"""Several runs of the trainer, one after the other, in the processes that a launcher has started.

Takes a JSON list with the arguments of each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    from trainer.train import main

    sys.exit(max(main(arguments) for arguments in json.loads(sys.argv[1])))
