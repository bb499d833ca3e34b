"""The command itself, on photo-like images and small random weights."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.images import write_smooth_photos
from upsr_core.cli.main import main
from upsr_core.evaluation import run as run_module
from upsr_core.evaluation.columns import NIQE_VARIABLE

METRICS = ["psnr", "ssim", "fine_detail", "grid", "colour_shift"]
# What ncnn needs for an upscaler without weights: a bicubic layer.
NCNN_BICUBIC = "7767517\n2 2\nInput in0 0 1 pixels\nInterp up 1 1 pixels large 0=3 1=4.0 2=4.0\n"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_smooth_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def no_niqe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NIQE_VARIABLE, raising=False)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Labels of the methods that are loaded, in order."""
    loaded: list[str] = []
    real = run_module.load_upscaler

    def load(method: Any, *args: Any) -> Any:
        loaded.append(method.label)
        return real(method, *args)

    monkeypatch.setattr(run_module, "load_upscaler", load)
    return loaded


def evaluate(*arguments: object, metrics: list[str] | None = None) -> int:
    return main(["evaluate", *map(str, arguments), "--device", "cpu", "--metrics", *(metrics or METRICS)])


def methods_of(folder: Path) -> list[str]:
    return ["-m", "bicubic", f"g:{folder}", f"upsr:{folder}"]


@pytest.fixture(scope="module")
def finished(photos: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two presets and two seeds; tests copy it before they change it."""
    out = tmp_path_factory.mktemp("run") / "out"
    command = [photos, "-o", out, "--preset", "bicubic", "mild", "--crop", "fit", "--seeds", 3, 4]
    assert evaluate(*command, *methods_of(tiny_folder)) == 0
    return out


def rerun(out: Path, photos: Path, folder: Path, *more: object) -> int:
    command = [photos, "-o", out, "--preset", "bicubic", "mild", "--crop", "fit", "--seeds", 3, 4]
    return evaluate(*command, *methods_of(folder), *more)


def test_table_has_a_row_for_each_method_and_kind_of_input(finished: Path) -> None:
    text = (finished / "table.md").read_text()
    assert text.startswith("2 images (cut down to multiples of 4), x4, seeds 3, 4; after ± the standard deviation")
    assert text.index("Plain antialiased bicubic reduction:") < text.index("Degraded by the preset `mild`:")
    assert len(re.findall(r"^\| bicubic ", text, re.M)) == 2
    data = json.loads((finished / "table.json").read_text())
    rows = {(row["input"], row["method"]): row for row in data["results"]}
    assert len(rows) == 6
    # Where nothing is random there is no spread, and nothing to repeat.
    assert rows["bicubic", "bicubic"]["psnr"]["std over seeds"] is None
    for key in (("bicubic", "upsr:tiny"), ("mild", "bicubic"), ("mild", "upsr:tiny")):
        numbers = rows[key]["psnr"]
        assert numbers["mean"] == pytest.approx(np.mean(numbers["by seed"]))
        assert numbers["std over seeds"] == pytest.approx(np.std(numbers["by seed"], ddof=1))
        assert f"{numbers['mean']:.2f} ±{numbers['std over seeds']:.2f}" in text
    assert set(data["versions"]) >= {"python", "torch", "diffusers"}
    assert set(data["methods"]["g:tiny"]["sha256"]) < set(data["methods"]["upsr:tiny"]["sha256"])
    assert all(row["seconds"] > 0 for row in data["results"])


def test_csv_holds_each_image(finished: Path) -> None:
    with open(finished / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    # bicubic and g: plain once, mild for both seeds; upsr always for both.
    assert len(rows) == 2 * (3 + 3 + 4)
    data = json.loads((finished / "table.json").read_text())
    mean = next(r for r in data["results"] if (r["input"], r["method"]) == ("mild", "g:tiny"))["psnr"]["mean"]
    own = [float(row["psnr"]) for row in rows if (row["input"], row["method"]) == ("mild", "g:tiny")]
    assert np.mean(own) == pytest.approx(mean)


def test_result_is_that_of_upsr_upscale(finished: Path, tiny_folder: Path, tmp_path: Path) -> None:
    lr = finished / "inputs/mild/seed-4/b.png"
    assert Image.open(lr).size == (32, 24)
    out = tmp_path / "b.png"
    arguments = [str(lr), "-o", str(out), "--model", str(tiny_folder), "--seed", "4", "--device", "cpu"]
    assert main(["upscale", *arguments]) == 0
    ours = finished / "images/upsr_tiny/mild/seed-4/b.png"
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(ours)))


def test_nothing_is_made_again(
    finished: Path, photos: Path, tiny_folder: Path, tmp_path: Path, loads: list[str]
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    before = (out / "table.json").read_text(), (out / "table.md").read_text()
    assert rerun(out, photos, tiny_folder) == 0
    assert loads == []
    assert ((out / "table.json").read_text(), (out / "table.md").read_text()) == before


def test_a_stopped_run_goes_on(
    finished: Path, photos: Path, tiny_folder: Path, tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    calls = 0
    real = run_module.measured

    def stop_at_the_third(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(run_module, "measured", stop_at_the_third)
    assert rerun(out, photos, tiny_folder) == 130
    assert not (out / "table.md").exists()
    assert len(list((out / "images").rglob("*.png"))) == 2
    assert rerun(out, photos, tiny_folder) == 0
    assert calls == 2 * (3 + 3 + 4) + 1
    with open(out / "table.csv") as a, open(finished / "table.csv") as b:
        columns = ["input", "method", "seed", "image", "psnr", "ssim", "fine_detail"]
        first, second = ([[row[c] for c in columns] for row in csv.DictReader(file)] for file in (a, b))
    assert first == second


def test_what_has_changed_is_made_again_and_no_more(
    finished: Path, photos: Path, tiny_folder: Path, tmp_path: Path, loads: list[str]
) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    folder = shutil.copytree(tiny_folder, tmp_path / "tiny")
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, weights, {"format": "pt"})
    damaged = out / "images/bicubic/bicubic/seed-3/a.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert rerun(out, photos, folder) == 0
    assert loads == ["bicubic", "upsr:tiny"]
    np.testing.assert_array_equal(
        np.asarray(Image.open(damaged)), np.asarray(Image.open(finished / "images/bicubic/bicubic/seed-3/a.png"))
    )
    names = "images/upsr_tiny/mild/seed-3/a.png"
    assert (out / names).read_bytes() != (finished / names).read_bytes()


def test_pairs_lr_images_and_finished_ones(photos: Path, tiny_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("a", "b"):
        photo = Image.open(photos / f"{name}.png").crop((0, 0, 128, 96))
        for folder, image in {"gt": photo, "lq": photo.reduce(4)}.items():
            (data / folder).mkdir(parents=True, exist_ok=True)
            image.save(data / folder / f"{name}.png")
    methods = ["-m", "bicubic", f"Real=folder:{data}/gt"]
    assert evaluate(data, "-o", tmp_path / "pairs", *methods) == 0
    rows = {row["method"]: row for row in json.loads((tmp_path / "pairs/table.json").read_text())["results"]}
    assert rows["Real"]["psnr"]["mean"] == "inf"
    assert rows["Real"]["ssim"]["mean"] == pytest.approx(1)
    assert rows["bicubic"]["input"] == "pairs"
    assert evaluate(data, "-o", tmp_path / "cut", "-m", "bicubic", "--crop", 64) == 0
    assert Image.open(tmp_path / "cut/inputs/pairs/seed-0/a.png").size == (16, 16)
    assert evaluate(data / "lq", "-o", tmp_path / "lr", *methods_of(tiny_folder), metrics=["psnr", "grid"]) == 0
    text = (tmp_path / "lr/table.md").read_text()
    assert "no PSNR-Y, dB: it compares with real images, and there are none." in text
    assert "| grid" in text
    assert "PSNR-Y, dB \u2191" not in text


def test_a_finished_image_of_another_size_or_none_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = tmp_path / "done"
    done.mkdir()
    Image.open(photos / "a.png").save(done / "a.png")
    command = [photos, "-o", tmp_path / "out", "--preset", "mild", "--crop", "fit", "-m", f"folder:{done}"]
    assert evaluate(*command) == 2
    assert "done: holds no result b, neither there nor in mild/seed-0; add it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    Image.open(photos / "b.png").save(done / "b.png")
    assert evaluate(*command) == 2
    assert "a.png: is 130x98, but 128x96 is needed" in capsys.readouterr().err


def test_ncnn_pair_whole_and_in_tiles(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    (tmp_path / "up.param").write_text(NCNN_BICUBIC)
    (tmp_path / "up.bin").touch()
    methods = ["-m", "bicubic", tmp_path / "up.param", f"Tiles=ncnn:{tmp_path / 'up'},tile=16"]
    assert evaluate(photos, "-o", tmp_path / "out", "--preset", "bicubic", "--crop", "fit", *methods) == 0
    images = [
        np.asarray(Image.open(tmp_path / f"out/images/{name}/bicubic/seed-0/a.png")).astype(int)
        for name in ("bicubic", "up", "Tiles")
    ]
    # ncnn's cubic has another a than papers have, so it is near but not equal; RGB is not BGR.
    assert np.abs(images[0] - images[1]).mean() < 4
    assert np.abs(images[0] - images[1][..., ::-1]).mean() > 10
    assert np.abs(images[1] - images[2]).mean() < 1
    scores = json.loads((tmp_path / "out/table.json").read_text())["methods"]["up"]
    assert set(scores["sha256"]) == {"up.param", "up.bin"}


def test_checkpoint_that_spandrel_knows(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("spandrel")
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RRDBNet(num_filters=8, num_blocks=1, scale=4)
    torch.save(network.state_dict(), tmp_path / "small.pth")
    command = [photos, "-o", tmp_path / "out", "--preset", "bicubic", "--crop", "fit"]
    assert evaluate(*command, "-m", tmp_path / "small.pth") == 0
    lr = Image.open(tmp_path / "out/inputs/bicubic/seed-0/a.png")
    x = torch.from_numpy(np.asarray(lr).astype(np.float32) / 255).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = (network.eval()(x).clamp(0, 1) * 255 + 0.5).floor()[0].permute(1, 2, 0).numpy()
    made = np.asarray(Image.open(tmp_path / "out/images/small/bicubic/seed-0/a.png"))
    assert np.abs(made - expected).max() <= 1
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    assert evaluate(*command, "-m", tmp_path / "other.pth") == 2
    assert "other.pth: spandrel knows no architecture for it" in capsys.readouterr().err


def test_wrong_arguments_are_said_in_a_line_and_nothing_is_written(
    photos: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    degraded = [photos, "-o", out, "--preset", "mild"]
    cases = {
        (*degraded,): "a.png: 130x98 is no multiple of 4; --crop fit",
        (*degraded, "--crop", 30): "--crop must be fit or a multiple of the scale 4, got '30'",
        (*degraded, "--hr", photos): "--hr names pairs, but --preset makes LR images of HR ones; leave one out",
        (*degraded, "--crop", "fit", "--seeds", -1): "--seeds must be whole numbers from 0",
        (*degraded, "--crop", "fit", "--limit", 0): "--limit must be at least 1, got 0",
        (*degraded, "--crop", "fit", "-m", "upsr:nowhere"): "nowhere: no such model folder",
        (*degraded, "--crop", "fit", "-m", "upscale"): "upscale: no such method",
    }
    for arguments, message in cases.items():
        assert evaluate(*arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert evaluate(*degraded, "--crop", "fit", "--scale", 2, "-m", f"upsr:{tiny_folder}") == 2
    assert "tiny: enlarges 4 times, not 2; give --scale 4" in capsys.readouterr().err
    assert evaluate(*degraded, "--crop", "fit", "-m", f"upsr:{tiny_folder},steps=9") == 2
    assert "num_inference_steps must be a whole number from 1 to 5" in capsys.readouterr().err


def test_a_metric_that_cannot_be_computed_is_said_and_the_others_go_on(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    command = [photos, "-o", tmp_path / "out", "--preset", "bicubic", "--crop", "fit", "-m", "bicubic"]
    assert evaluate(*command, metrics=["psnr", "musiq", "niqe"]) == 0
    output = capsys.readouterr()
    # Before the first bar, so before any work.
    assert output.err.index("no MUSIQ: ") < output.err.index("LR images")
    assert re.search(
        r"no MUSIQ: (the package pyiqa is not installed; pip|.*musiq_koniq\S+ is missing, get it from)", output.err
    )
    assert "no NIQE: its parameters are not named; get https://" in output.err
    text = (tmp_path / "out/table.md").read_text()
    assert "- no NIQE: " in text
    assert "| PSNR-Y, dB" in text
    assert evaluate(*command, metrics=["niqe"]) == 2
    assert "none of the metrics can be computed" in capsys.readouterr().err


def test_sheet_shows_the_methods_beside_each_other(finished: Path) -> None:
    sheet = np.asarray(Image.open(finished / "sheet.png"))
    # LR, three methods and the real one; two photos, each in two kinds of input.
    assert sheet.shape[1] == 5 * (2 * 96 + 6) - 6
    assert sheet.shape[0] > 4 * 2 * 96


def test_what_arguments_and_paths_tell_needs_no_torch(photos: Path) -> None:
    code = (
        "import sys\nfrom upsr_core.cli.main import main\n"
        f"print(main(['evaluate', {str(photos)!r}, '-o', 'out', '--preset', 'mild']), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no multiple of 4" in done.stderr
    assert done.stdout == "2 False\n"


def test_st_lpips_is_a_distance_to_the_real_image(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("stlpips_pytorch")
    command = [photos, "-o", tmp_path / "out", "--preset", "mild", "--crop", 96, "-m", "bicubic"]
    real = tmp_path / "real"
    real.mkdir()
    for name in ("a.png", "b.png"):
        photo = Image.open(photos / name)
        photo.crop((16, 0, 112, 96)).save(real / name)
    assert evaluate(*command, f"folder:{real}", metrics=["st_lpips"]) == 0
    rows = json.loads((tmp_path / "out/table.json").read_text())["results"]
    assert rows[0]["st_lpips"]["mean"] > 0.05
    assert rows[1]["st_lpips"]["mean"] == pytest.approx(0, abs=1e-6)


def test_a_metric_that_cannot_be_loaded_stops_the_run_after_its_images(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "niqe.npz"
    broken.write_text("no parameters")
    monkeypatch.setenv(NIQE_VARIABLE, str(broken))
    command = [photos, "-o", tmp_path / "out", "--preset", "bicubic", "--crop", "fit", "-m", "bicubic"]
    assert evaluate(*command, metrics=["psnr", "niqe"]) == 2
    assert "niqe.npz: holds no NIQE parameters; get https://" in capsys.readouterr().err
    assert len(list((tmp_path / "out/images").rglob("*.png"))) == 2
    assert evaluate(*command, metrics=["psnr"]) == 0


def test_diffusers_ldm_super_resolution(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    from diffusers import DDIMScheduler, LDMSuperResolutionPipeline, UNet2DModel, VQModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = LDMSuperResolutionPipeline(
            vqvae=VQModel(
                block_out_channels=(32, 32, 32),
                down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3,
                latent_channels=3,
            ),
            unet=UNet2DModel(
                in_channels=6,
                out_channels=3,
                block_out_channels=(32, 32),
                layers_per_block=1,
                down_block_types=("DownBlock2D",) * 2,
                up_block_types=("UpBlock2D",) * 2,
            ),
            scheduler=DDIMScheduler(),
        )
    pipe.save_pretrained(tmp_path / "ldm")
    command = [photos, "-o", tmp_path / "out", "--preset", "bicubic", "--crop", "fit", "--seeds", 0, 1]
    assert evaluate(*command, "-m", f"ldm:{tmp_path / 'ldm'},steps=2") == 0
    images = [
        np.asarray(Image.open(tmp_path / f"out/images/ldm_ldm_steps=2/bicubic/seed-{seed}/a.png")) for seed in (0, 1)
    ]
    assert images[0].shape == (96, 128, 3)
    assert (images[0] != images[1]).any()
    assert evaluate(*command, "-m", f"ldm:{tmp_path / 'nowhere'}") == 2
    assert "nowhere: cannot be loaded as diffusers' LDM super-resolution" in capsys.readouterr().err
