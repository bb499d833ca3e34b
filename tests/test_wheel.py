"""The wheel works outside the repository, and brings nothing that could hide another package's modules."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL = "upsr_core/checkpoints/upsr-tiny-x4"


@pytest.mark.skipif(int(version("setuptools").split(".")[0]) < 77, reason="pyproject.toml asks for setuptools 77")
def test_the_wheel_works_outside_the_repository(tmp_path: Path) -> None:
    source, home = tmp_path / "source", tmp_path / "site-packages"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("upsr_core", "nodes", "trainer"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('..'))"
    built = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        wheel.extractall(home)
    tops = {path.name for path in home.iterdir()}
    assert tops == {"upsr_core", next(name for name in tops if name.endswith(".dist-info"))}
    files = {path.relative_to(ROOT) for path in (ROOT / MODEL).rglob("*") if path.is_file()}
    assert all((home / path).read_bytes() == (ROOT / path).read_bytes() for path in files)
    environment = {**os.environ, "PYTHONPATH": str(home)}
    command = [sys.executable, "-m", "upsr_core.cli", "doctor", "--json"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout)["models"]["bundled"] == str(home / MODEL)
