"""The compiled denoiser. A backend that compiles nothing shows which graphs are made; the real one takes a minute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.core.conftest import smooth_image
from tests.tiny import build_tiny
from upsr_core.cli.main import main
from upsr_core.compilation import compiled_tile
from upsr_core.tiling import Tiling


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Graphs:
    """A backend that counts the graphs it is given."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        self.count += 1
        return graph


def test_one_graph_serves_images_of_all_sizes_and_gives_the_same() -> None:
    plain, compiled, graphs = build_tiny(), build_tiny(), Graphs()
    compiled.compile(backend=graphs, fullgraph=True)
    options = {"tile_size": 16, "tile_overlap": 4, "tile_batch_size": 2, "output_type": "pt"}
    # The first has an odd number of tiles, and the second one size of tiles with and without compiling, too.
    for size in ((28, 28), (16, 40), (40, 16)):
        lr = smooth_image(*size)
        found, expected = (
            pipe(lr, generator=torch.Generator().manual_seed(0), **options).images for pipe in (compiled, plain)
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert graphs.count == 1


def test_a_network_that_torch_has_wrapped_is_one_that_is_compiled() -> None:
    plain, wrapped, graphs = build_tiny(), build_tiny(), Graphs()
    wrapped.unet = torch.compile(wrapped.unet, backend=graphs, dynamic=False)
    for size in ((28, 28), (16, 150)):
        lr = smooth_image(*size)
        found, expected = (
            pipe(lr, generator=torch.Generator().manual_seed(0), tile_size=16, tile_overlap=4, output_type="pt").images
            for pipe in (wrapped, plain)
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert wrapped(smooth_image(200, 300), output_type="pt").images.shape == (1, 3, 800, 1200)
    assert graphs.count <= 3


def test_compiled_tiles_have_one_size_and_calls_one_number() -> None:
    tiling = Tiling(400, 600, 512, overlap=16, unit=64, batch_size=4, one_size=True)
    assert tiling.sides == (400, 512)
    assert Tiling(400, 600, 128, overlap=16, unit=64, one_size=True).sides == (128, 128)
    *_, last = tiling.chunks(3)
    assert len(last) == 2
    assert tiling.filled(last) == [*last, last[-1], last[-1]]
    assert Tiling(400, 600, 512, overlap=16, unit=64, batch_size=4).filled(last) is last


@pytest.mark.parametrize(("largest", "unit", "side"), [(512, 64, 128), (64, 32, 64), (480, 48, 96), (512, 256, 256)])
def test_tiles_to_compile_for(largest: int, unit: int, side: int) -> None:
    assert compiled_tile(largest, unit) == side


def test_a_missing_compiler_is_said_before_any_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    assert main(["upscale", str(photo), "--compile", "--model", str(tiny_folder), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "needs a C++ compiler, but no-such-compiler is not found" in said
    assert said.count("\n") == 1
