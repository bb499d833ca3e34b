"""Messages that do not stop a run: warnings of the library and of the nodes, shown at the node."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger("upsr_nodes")
LOGGERS = ("upsr_core", logger.name)


class _Listener(logging.Handler):
    def __init__(self, show: Callable[[str], None]):
        super().__init__(logging.WARNING)
        self._show = show
        self._messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message not in self._messages:
            self._messages.append(message)
            self._show("\n".join(self._messages))


@contextmanager
def shown(show: Callable[[str], None]) -> Iterator[None]:
    """Call ``show`` with all warnings so far, each once, whenever there is another one."""
    listener = _Listener(show)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(listener)
    try:
        yield
    finally:
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(listener)


def show_at_node(node_id: str | None) -> Callable[[str], None]:
    """A ``show`` that writes under the node in the browser; where no server runs, the log alone has it."""
    # Not imported: that works in ComfyUI's main program only.
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)

    def show(text: str) -> None:
        if server is not None and node_id is not None:
            server.send_progress_text(text, node_id)

    return show
