"""What the pack promises to ComfyUI and to package managers, as far as files can tell."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pathspec
import pytest

ROOT = Path(__file__).parents[2]
NODE_IDS = ("EstimateUncertainty", "LoadUPSR", "UPSRExamplePhoto", "UPSRSample")
FOLDERS = ("nodes", "upsr_core", "locales", "example_workflows", "examples")


def test_requirements_never_bring_torch_and_agree_with_the_library() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    names = {re.split(r"[<>=]", line)[0] for line in lines}
    assert not names & {"torch", "torchvision", "torchaudio", "numpy", "pillow", "opencv-python", "upsr"}
    project = (ROOT / "pyproject.toml").read_text()
    for line in lines:
        assert f'"{line}"' in project, "one lower bound for the nodes and the library"
        assert "==" not in line


def test_metadata_for_the_registry() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for key in ("PublisherId", "DisplayName", "requires-comfyui"):
        assert re.search(rf'^{key} = "[^"]+"$', text, re.MULTILINE), key
    assert "comfyui" not in re.search(r'^name = "(.*)"$', text, re.MULTILINE)[1].lower()


def test_what_the_registry_leaves_out_is_not_needed_by_the_nodes() -> None:
    ignored = [line for line in (ROOT / ".comfyignore").read_text().splitlines() if not line.startswith("#")]
    assert all((ROOT / name.strip("/")).exists() for name in ignored)
    # As comfy-cli packs it.
    spec = pathspec.PathSpec.from_lines("gitignore", ignored)
    needed = [ROOT / name for name in ("__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md")]
    needed += [path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file()]
    assert len(needed) > 40
    assert not [path for path in needed if spec.match_file(path.relative_to(ROOT).as_posix())]
    assert spec.match_file("trainer/train.py")
    for path in (ROOT / "nodes").rglob("*.py"):
        for name in imported(path):
            assert name.split(".")[0] not in {"trainer", "tests", "benchmarks", "nodes"}, (path, name)


def imported(path: Path) -> set[str]:
    """Absolute imports of a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module))
    return names


def test_nothing_heavy_at_import() -> None:
    """upsr_core, and so diffusers, is imported inside functions only."""
    for path in (ROOT / "nodes").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(str(name).split(".")[0] in {"upsr_core", "diffusers"} for name in modules), path


def test_the_door_does_nothing_outside_comfyui(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where COMFYUI_PATH is set, other tests have imported ComfyUI into this process.
    monkeypatch.delitem(sys.modules, "folder_paths", raising=False)
    spec = importlib.util.spec_from_file_location(
        "upsr_door", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not hasattr(module, "comfy_entrypoint")


BIND = """
import sys, importlib.util
spec = importlib.util.spec_from_file_location("library", {library!r})
library = importlib.util.module_from_spec(spec)
spec.loader.exec_module(library)
path = list(sys.path)
library.bind_library()
assert "diffusers" not in sys.modules, "bound, not imported"
from upsr_core.tile_choice import wanted_bytes
import upsr_core
assert "diffusers" in sys.modules
assert upsr_core.UPSRPipeline.__module__ == "upsr_core.pipeline_upsr"
assert upsr_core.__file__ == {init!r}
assert sys.modules["upsr_core"] is upsr_core
assert sys.path == path
before = upsr_core
library.bind_library()
import upsr_core
assert upsr_core is before
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained({model!r})
assert type(pipe) is upsr_core.UPSRPipeline
"""


def test_one_copy_of_the_library_bound_without_importing_it(tmp_path: Path) -> None:
    """From a folder where nothing finds upsr_core by itself."""
    code = BIND.format(
        library=str(ROOT / "nodes" / "library.py"),
        init=str(ROOT / "upsr_core" / "__init__.py"),
        model=str(ROOT / "upsr_core" / "checkpoints" / "upsr-tiny-x4"),
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("locale", "page"), [("en", "{}.md"), ("zh", "{}/zh.md")])
@pytest.mark.parametrize("node_id", NODE_IDS)
def test_every_node_has_a_help_page_that_names_its_inputs_and_outputs(node_id: str, locale: str, page: str) -> None:
    text = (ROOT / "nodes" / "web" / "docs" / page.format(node_id)).read_text(encoding="utf-8")
    nodes = json.loads((ROOT / "locales" / locale / "nodeDefs.json").read_text(encoding="utf-8"))
    evident = {nodes["UPSRSample"]["inputs"][key]["name"] for key in ("upsr_model", "image")}
    texts = nodes[node_id]
    assert text.startswith(f"# {texts['display_name']}\n")
    for name in [value["name"] for part in ("inputs", "outputs") for value in texts.get(part, {}).values()]:
        assert name in text or name in evident, name


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_help_pages_have_the_same_parts_in_both_languages(node_id: str) -> None:
    docs = ROOT / "nodes" / "web" / "docs"
    pages = [(docs / name).read_text(encoding="utf-8") for name in (f"{node_id}.md", f"{node_id}/zh.md")]
    shapes = [[line[:2] for line in page.splitlines() if line[:2] in ("# ", "##", "| ", "- ")] for page in pages]
    assert shapes[0] == shapes[1]


def test_both_languages_say_the_same_things() -> None:
    english, chinese = (json.loads((ROOT / "locales" / code / "nodeDefs.json").read_text()) for code in ("en", "zh"))
    assert sorted(english) == sorted(chinese) == list(NODE_IDS)

    def keys(texts: dict, prefix: str = "") -> set[str]:
        found = set()
        for key, value in texts.items():
            assert value, f"{prefix}{key} is empty"
            found |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
        return found

    assert keys(english) == keys(chinese)
