"""What importing the package imports, and that diffusers learns of its classes all the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

from upsr_core.loading import BUNDLED_MODEL

LOAD = """
pipe = DiffusionPipeline.from_pretrained(sys.argv[1])
print(*(type(part).__name__ for part in (pipe, pipe.unet, pipe.scheduler)), type(pipe).__module__)
"""
OURS = "UPSRPipeline UPSRUNet UNWScheduler upsr_core.pipeline_upsr"
# The hook, once it has done its work.
TRACE = """
import diffusers.pipelines.pipeline_utils as module
print(type(module.__spec__.loader).__name__)
print([finder for finder in sys.meta_path if 'upsr' in type(finder).__module__])
"""


def output(code: str) -> str:
    command = [sys.executable, "-c", f"import sys\n{code}", str(BUNDLED_MODEL)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert output("import upsr_core; print({'torch', 'diffusers', 'numpy'} & set(sys.modules))") == "set()"


@pytest.mark.parametrize(
    "imports",
    [
        "import upsr_core\nfrom diffusers import DiffusionPipeline",
        "from diffusers import DiffusionPipeline\nimport upsr_core",
        "import upsr_core.pipeline_upsr\nfrom diffusers import DiffusionPipeline",
    ],
)
def test_plain_diffusers_loads_our_folders_in_any_order_of_imports(imports: str) -> None:
    assert output(f"{imports}\n{LOAD}\n{TRACE}") == f"{OURS}\nSourceFileLoader\n[]"


def test_every_public_name_is_there_and_no_other() -> None:
    import upsr_core

    assert all(getattr(upsr_core, name).__module__.startswith("upsr_core.") for name in upsr_core.__all__)
    assert set(upsr_core.__all__) <= set(dir(upsr_core))
    with pytest.raises(AttributeError, match="no attribute 'UPSRNet'"):
        _ = upsr_core.UPSRNet  # type: ignore[attr-defined]
