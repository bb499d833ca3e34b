from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.core.cli.photos import files_in, save_photo, size_of
from upsr_core import UPSRPipeline, load_pipeline
from upsr_core.cli.main import main
from upsr_core.images.files import DecodedImage, read_image, write_image
from upsr_core.pixels import quantise
from upsr_core.uncertainty import heat_map


@pytest.fixture(scope="module")
def pipe(tiny_folder: Path) -> UPSRPipeline:
    pipe = load_pipeline(tiny_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def levels_of(path: Path) -> torch.Tensor:
    return (read_image(path).rgb * 255).round()


def test_upscale_writes_what_the_pipeline_computes(
    pipe: UPSRPipeline, model: list[str], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photo.with_name("out.png")
    assert main(["upscale", str(photo), "-o", str(out), "--seed", "7", "--steps", "3", *model]) == 0
    lr = read_image(photo).rgb
    generator = torch.Generator().manual_seed(7)
    expected = pipe(lr, num_inference_steps=3, generator=generator, output_type="pt").images
    assert torch.equal(levels_of(out), quantise(expected, 255))
    printed = capsys.readouterr()
    assert f"{photo} -> {out} (80x52, " in printed.out
    assert printed.err == ""


def test_options_reach_the_pipeline(pipe: UPSRPipeline, model: list[str], tmp_path: Path) -> None:
    photo, out = save_photo(tmp_path / "photo.png", size=(40, 40)), tmp_path / "out.png"
    options = ["--stochasticity", "0.5", "--noise-strength", "0.7", "--tile", "32", "--tile-overlap", "8"]
    assert main(["upscale", str(photo), "-o", str(out), *options, *model]) == 0
    expected = pipe(
        read_image(photo).rgb,
        stochasticity=0.5,
        generator=torch.Generator().manual_seed(0),
        noise_strength=0.7,
        tile_size=32,
        tile_overlap=8,
        output_type="pt",
    ).images
    assert torch.equal(levels_of(out), quantise(expected, 255))


def test_result_depends_on_the_seed_and_not_on_the_other_images(model: list[str], tmp_path: Path) -> None:
    photos = [save_photo(tmp_path / f"in/{seed}.png", seed=seed) for seed in range(3)]
    run = ["upscale", "--steps", "1", *model]
    assert main([*run, str(tmp_path / "in"), "-o", str(tmp_path / "all")]) == 0
    assert main([*run, str(photos[2]), "-o", str(tmp_path / "one.png")]) == 0
    assert main([*run, str(photos[2]), "-o", str(tmp_path / "other.png"), "--seed", "1"]) == 0
    assert (tmp_path / "all/2.png").read_bytes() == (tmp_path / "one.png").read_bytes()
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "one.png").read_bytes()


def test_result_lies_beside_the_input_by_default(model: list[str], photo: Path) -> None:
    assert main(["upscale", str(photo), "--steps", "1", *model]) == 0
    assert files_in(photo.parent) == {"photo.png", "photo_upscaled.png"}


@pytest.mark.parametrize(("scale", "size"), [("2", (40, 26)), ("1.5", (30, 20)), ("4", (80, 52))])
def test_smaller_scale_gives_the_exact_size(
    model: list[str], photo: Path, scale: str, size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    full, out = photo.with_name("full.png"), photo.with_name("out.png")
    assert main(["upscale", str(photo), "-o", str(full), "--steps", "1", *model]) == 0
    assert main(["upscale", str(photo), "-o", str(out), "--steps", "1", "--scale", scale, *model]) == 0
    assert size_of(out) == size
    assert ("Lanczos" in capsys.readouterr().err) == (scale != "4")
    with Image.open(full) as image:
        expected = np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.int16)
    # Pillow resizes 8-bit images in two passes and rounds and clips after each.
    difference = np.abs(np.asarray(Image.open(out), np.int16) - expected)
    assert difference.mean() < 0.5
    assert difference.max() <= 8


def test_format_and_quality(model: list[str], photo: Path, tmp_path: Path) -> None:
    run = ["upscale", str(photo), "--steps", "1", "--format", "jpg", *model]
    for folder, quality in (("fine", "95"), ("coarse", "20")):
        assert main([*run, "-o", f"{tmp_path / folder}/", "--quality", quality]) == 0
    with Image.open(tmp_path / "fine/photo.jpg") as image:
        assert image.format == "JPEG"
    assert (tmp_path / "coarse/photo.jpg").stat().st_size < (tmp_path / "fine/photo.jpg").stat().st_size


def test_transparency_is_kept(model: list[str], tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "photo.png", "RGBA")
    assert main(["upscale", str(photo), "-o", str(tmp_path / "out.png"), "--steps", "1", *model]) == 0
    out = read_image(tmp_path / "out.png")
    assert out.alpha is not None
    assert out.alpha.shape == (1, 1, 52, 80)
    coarse = torch.nn.functional.avg_pool2d(out.alpha, 4)
    torch.testing.assert_close(coarse, read_image(photo).alpha, atol=0.1, rtol=0)


def test_jpeg_of_a_transparent_image_needs_a_background(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out.jpg"
    Image.new("RGBA", (20, 13), (0, 0, 0, 0)).save(photo)
    run = ["upscale", str(photo), "-o", str(out), "--steps", "1", *model]
    assert main(run) == 2
    assert "JPEG has no transparency" in capsys.readouterr().err
    assert main([*run, "--background", "#ff8000"]) == 0
    torch.testing.assert_close(read_image(out).rgb.mean(dim=(2, 3)), torch.tensor([[1.0, 0.5, 0.0]]), atol=0.02, rtol=0)


def test_16_bits_are_kept(model: list[str], tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    ramp = torch.linspace(0.2, 0.8, 60).view(1, 1, 3, 20).expand(1, 3, 3, 20)
    write_image(photo, DecodedImage(rgb=ramp, bit_depth=16))
    assert main(["upscale", str(photo), "-o", str(tmp_path / "out.png"), "--steps", "1", *model]) == 0
    out = read_image(tmp_path / "out.png")
    assert out.bit_depth == 16
    assert (out.rgb * 255 - (out.rgb * 255).round()).abs().max() > 0.1


# Several files


def test_a_bad_file_does_not_stop_the_others(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "d.png"):
        save_photo(tmp_path / "in" / name)
    (tmp_path / "in/b.png").write_bytes(b"")
    (tmp_path / "in/c.jpg").write_text("no image")
    run = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--steps", "1", *model]
    assert main(run) == 1
    assert files_in(tmp_path / "out") == {"a.png", "d.png"}
    summary = capsys.readouterr().err.split("upsr: error: ")[1].splitlines()
    assert summary[0] == "2 of 4 images failed"
    assert summary[1].startswith(f"  {tmp_path / 'in/b.png'}: is empty")
    assert summary[2].startswith(f"  {tmp_path / 'in/c.jpg'}: ")


def test_folder_runs_keep_names_and_layout(model: list[str], tmp_path: Path) -> None:
    for name in ("a.png", "b.BMP", "sub/c.webp", ".hidden.png", "out/old.png"):
        save_photo(tmp_path / "in" / name)
    (tmp_path / "in/notes.txt").write_text("not an image")
    run = ["upscale", str(tmp_path / "in"), "--steps", "1", *model]
    assert main([*run, "-o", str(tmp_path / "flat")]) == 0
    assert files_in(tmp_path / "flat") == {"a.png", "b.png"}
    # A folder of results inside the input folder is no input.
    assert main([*run, "-r", "-o", str(tmp_path / "in/out")]) == 0
    assert files_in(tmp_path / "in/out") == {"a.png", "b.png", "sub/c.webp", "old.png"}
    # A folder of results around the input folder is no obstacle.
    assert main([*run, "-o", str(tmp_path), "--format", "png"]) == 0
    assert (tmp_path / "a.png").is_file()


def test_globs_and_lists_of_files(model: list[str], tmp_path: Path) -> None:
    for name in ("a1.png", "a2.png", "b1.png", "c/d/e.png"):
        save_photo(tmp_path / name)
    run = ["upscale", "--steps", "1", "-o", str(tmp_path / "out"), *model]
    patterns = [str(tmp_path / "a*.png"), str(tmp_path / "c/**/*.png"), str(tmp_path / "a1.png")]
    assert main([*run, *patterns]) == 0
    assert files_in(tmp_path / "out") == {"a1.png", "a2.png", "e.png"}


def test_existing_results_are_replaced_or_skipped(
    model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png"):
        save_photo(tmp_path / "in" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").write_text("earlier")
    run = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--steps", "1", *model]
    assert main([*run, "--skip-existing"]) == 0
    assert "1 of 2" in capsys.readouterr().out
    assert (tmp_path / "out/a.png").read_text() == "earlier"
    assert size_of(tmp_path / "out/b.png") == (80, 52)
    assert main(run) == 0
    assert size_of(tmp_path / "out/a.png") == (80, 52)


# uncertainty


def test_uncertainty_writes_the_heat_map(pipe: UPSRPipeline, model: list[str], photo: Path) -> None:
    out = photo.with_name("map.png")
    assert main(["uncertainty", str(photo), "-o", str(out), *model]) == 0
    psi, _ = pipe.estimate_uncertainty(read_image(photo).rgb)
    assert torch.equal(levels_of(out), quantise(heat_map(psi), 255))
    assert main(["uncertainty", str(photo), "-o", str(out), "--psi-max", "0.5", *model]) == 0
    assert torch.equal(levels_of(out), quantise(heat_map(psi, 0.5), 255))


def test_short_options_mean_the_long_ones(model: list[str], photo: Path, tmp_path: Path) -> None:
    short = ["-s", "2", "-f", "webp", "-t", "32"]
    long = ["--scale", "2", "--format", "webp", "--tile", "32"]
    for name, options in {"short": short, "long": long}.items():
        assert main(["upscale", str(photo), "-o", f"{tmp_path / name}/", *options, *model]) == 0
    results = [tmp_path / name / "photo.webp" for name in ("short", "long")]
    assert results[0].read_bytes() == results[1].read_bytes()
    assert size_of(results[0]) == (40, 26)


def test_threads(model: list[str], photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    assert main(["uncertainty", str(photo), "--threads", "3", *model]) == 0
    assert counts == [3]


def test_larger_scale_is_resized_and_that_is_said(
    model: list[str], photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photo.with_name("out.png")
    assert main(["upscale", str(photo), "-o", str(out), "--steps", "1", "--scale", "6", *model]) == 0
    assert size_of(out) == (120, 78)
    assert "resized to 6x (Lanczos), which adds no detail" in capsys.readouterr().err


def test_width_is_that_of_every_result(model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in {"a": (20, 13), "b": (31, 50), "c": (9, 5), "narrow": (2, 9)}.items():
        save_photo(tmp_path / "in" / f"{name}.png", size=size)
    assert main(["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--width", "37", *model]) == 1
    assert {path.name: size_of(path) for path in (tmp_path / "out").iterdir()} == {
        "a.png": (37, 24),
        "b.png": (37, 60),
        "c.png": (37, 21),
    }
    error = capsys.readouterr().err
    assert "--width 37 is more than 16 times its 2 pixels" in error
    assert error.count("(Lanczos), which adds no detail") == 1
    assert "c.png: the model enlarges 4x; results are resized to 4.11111x (Lanczos), which adds no detail" in error
    assert main(["upscale", str(tmp_path / "in"), "-o", "x/", "--width", "37", "-s", "2"]) == 2
