"""A real ComfyUI server with the pack installed, and a client that talks to it as the browser does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACK_NAME = "ComfyUI-UPSR"
# What the registry ships; the rest of the repository must not be needed.
SHIPPED = (
    *("__init__.py", "LICENSE", "README.md", "pyproject.toml", "requirements.txt"),
    *("example_workflows", "examples", "locales", "nodes", "upsr_core"),
)
START_SECONDS = 240
RUN_SECONDS = 150
TEXT_FRAME, PREVIEW_FRAME = 3, 4
ENDINGS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass
class Run:
    """What the websocket told of one prompt.

    Attributes:
        events: (type, data) in the order they came.
        previews: metadata and encoded image of each preview frame.
        texts: what was shown at a node: its id and the text.
    """

    prompt_id: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    previews: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of all events of a type."""
        return [data for name, data in self.events if name == kind]

    @property
    def ending(self) -> str:
        """How it ended: `execution_success`, `execution_error` or `execution_interrupted`."""
        return [name for name, _ in self.events if name in ENDINGS][-1]

    @property
    def over(self) -> bool:
        """Whether the server is done with it, its history included."""
        return bool(self.events) and self.events[-1][0] == "executing" and self.events[-1][1]["node"] is None

    @property
    def error(self) -> str:
        """The message of the exception that ended it."""
        return self.of("execution_error")[-1]["exception_message"]

    @property
    def ran(self) -> set[str]:
        """Ids of the nodes that were executed and not taken from the cache."""
        cached = {node for data in self.of("execution_cached") for node in data["nodes"]}
        return {data["node"] for data in self.of("executing") if data["node"] is not None} - cached


class ComfyServer:
    """The server, for as long as `running` holds it.

    Attributes:
        url: of the server, without a slash at its end.
        base: its base directory, with custom_nodes/, input/, output/, models/.
        extra: a folder of models that its extra_model_paths.yaml names as the first for ``upsr``.
        pack: the copy of the pack that it runs.
        start_log: what it has printed until it answered.
    """

    def __init__(self, checkout: Path, base: Path):
        self.base, self.extra = base, base / "elsewhere" / "upsr"
        self.pack = base / "custom_nodes" / PACK_NAME
        self.start_log = ""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{self._address}"
        self._lay_out(checkout)
        self.log_path = base / "server.log"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(checkout), cwd=checkout, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def _command(self, checkout: Path) -> list[str]:
        options = {
            "--port": self._address.split(":")[1],
            "--base-directory": str(self.base),
            "--extra-model-paths-config": str(self.base / "extra_model_paths.yaml"),
            "--database-url": "sqlite:///:memory:",
        }
        flags = ["--cpu", "--disable-auto-launch", "--disable-api-nodes"]
        return [sys.executable, str(checkout / "main.py"), *flags, *(part for item in options.items() for part in item)]

    def _lay_out(self, checkout: Path) -> None:
        """The base directory of a fresh installation with the pack in it."""
        self.pack.mkdir(parents=True)
        for name in SHIPPED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.pack / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, self.pack / name)
        self.extra.mkdir(parents=True)
        (self.base / "extra_model_paths.yaml").write_text(f"mine:\n  base_path: {self.extra.parent}\n  upsr: upsr\n")
        (self.base / "input").mkdir()

    @classmethod
    @contextmanager
    def running(cls, checkout: Path, base: Path) -> Iterator[ComfyServer]:
        """Start it, wait until it answers, and stop it at the end."""
        server = cls(checkout, base)
        try:
            server._wait()
            yield server
        finally:
            server._stop()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with {self._process.returncode}:\n{self.log[-3000:]}")
            try:
                self.get("/system_stats")
            except (OSError, ValueError):
                time.sleep(0.5)
                continue
            self.start_log = self.log
            if "IMPORT FAILED" in self.start_log:
                raise RuntimeError(f"ComfyUI could not import the pack:\n{self.log[-3000:]}")
            return
        raise TimeoutError(f"ComfyUI did not answer within {START_SECONDS} s:\n{self.log[-3000:]}")

    def _stop(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_path.read_text(errors="replace")

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        """What is at a path."""
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read()

    def post(self, path: str, content: dict[str, Any]) -> tuple[int, Any]:
        """Send JSON; the status, and the JSON that came back, None for an empty answer."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, json.dumps(content).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        return status, json.loads(body) if body else None

    def run(self, prompt: dict[str, Any], on_event: Callable[[str, dict[str, Any]], None] | None = None) -> Run:
        """Queue a prompt in API format and listen to its end.

        Args:
            prompt: node id to class_type and inputs.
            on_event: called with type and data of every event that is JSON.
        """
        import websocket

        client = uuid.uuid4().hex
        channel = websocket.create_connection(f"ws://{self._address}/ws?clientId={client}", timeout=RUN_SECONDS)
        try:
            features = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
            channel.send(json.dumps(features))
            status, answer = self.post("/prompt", {"prompt": prompt, "client_id": client})
            if status != 200:
                raise RuntimeError(f"refused with {status}: {json.dumps(answer)}")
            run = Run(answer["prompt_id"])
            while not run.over:
                _take(channel.recv(), run, on_event)
            return run
        finally:
            channel.close()

    def outputs(self, run: Run) -> dict[str, Any]:
        """What the nodes of a run gave to the user, by node id."""
        return self.get(f"/history/{run.prompt_id}")[run.prompt_id]["outputs"]

    def images(self, run: Run, node_id: str) -> list[Path]:
        """The files that a node of a run wrote."""
        return [
            self.base / image["type"] / image["subfolder"] / image["filename"]
            for image in self.outputs(run)[node_id]["images"]
        ]


def _take(message: str | bytes, run: Run, on_event: Callable[[str, dict[str, Any]], None] | None) -> None:
    if isinstance(message, str):
        event = json.loads(message)
        kind, data = event["type"], event.get("data", {})
        if data.get("prompt_id", run.prompt_id) == run.prompt_id:
            run.events.append((kind, data))
            if on_event is not None:
                on_event(kind, data)
        return
    kind, length = struct.unpack(">II", message[:8])
    head, rest = message[8 : 8 + length].decode(), message[8 + length :]
    if kind == PREVIEW_FRAME:
        run.previews.append((json.loads(head), rest))
    elif kind == TEXT_FRAME:
        run.texts.append((head, rest.decode()))
