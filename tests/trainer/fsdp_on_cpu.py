"""As several_runs.py, sharded by FSDP on a CPU.

torch can do that. accelerate asks for it on accelerators alone, and is told here that this is one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

plugins: list[FullyShardedDataParallelPlugin] = []
initialise = AcceleratorState.__init__


def sharded(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None:
        plugins.append(fsdp_plugin)
    self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, plugins[-1]


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    from trainer.train import main

    AcceleratorState.__init__ = sharded  # type: ignore[method-assign]
    sys.exit(max(main(arguments) for arguments in json.loads(sys.argv[1])))
