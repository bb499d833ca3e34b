"""One thread for all tests and the processes that they start: their images are too small for more to pay."""

from __future__ import annotations

import os

# Before torch is imported. Processes that compute beside each other with a thread for each core slow each other down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
