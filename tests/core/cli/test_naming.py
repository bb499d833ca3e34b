from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.cli.photos import save_photo
from upsr_core.cli.naming import Naming
from upsr_core.cli.paths import Job, plan_jobs


def plan(inputs: list[str], out: str | None = None, name: str | None = None, suffix: str | None = None) -> list[Job]:
    named = None if name is None else Naming(name, seed=7)
    return plan_jobs(inputs, out, suffix=suffix, beside=Naming("{stem}_upscaled"), named=named, recursive=True)


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{stem}_x4", "a.b_x4.png"),
        ("{seed}-{stem}-{ext}", "7-a.b-JPG.png"),
        ("{{{stem}}}", "{a.b}.png"),
    ],
)
def test_fields_are_filled_in(template: str, name: str) -> None:
    assert Naming(template, seed=7).name(Path("photos/a.b.JPG"), ".png") == name


@pytest.mark.parametrize(
    "template",
    ["", "{width}", "{stem:>20}", "{stem!r}", "{stem.parent}", "{0}", "{}", "{stem", "stem}", "../{stem}", "a\\{stem}"],
)
def test_a_bad_template_is_refused_by_one_line_that_names_it(template: str) -> None:
    with pytest.raises(ValueError, match="--name") as caught:
        Naming(template)
    assert "\n" not in str(caught.value)


def test_names_in_a_folder_and_beside_the_inputs(tmp_path: Path) -> None:
    for name in ("in/a.png", "in/sub/b.bmp", "c.jpg"):
        save_photo(tmp_path / name)
    jobs = plan([str(tmp_path / "in"), str(tmp_path / "c.jpg")], str(tmp_path / "out"), "{stem}_x4")
    names = {str(job.target.relative_to(tmp_path / "out")) for job in jobs if job.target}
    assert names == {"a_x4.png", "sub/b_x4.png", "c_x4.jpg"}
    (job,) = plan([str(tmp_path / "c.jpg")], None, "{stem}_{seed}", ".webp")
    assert job == Job(tmp_path / "c.jpg", tmp_path / "c_7.webp", ".webp")


def test_equal_names_of_two_types_can_be_told_apart(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        save_photo(tmp_path / "in" / name)
    with pytest.raises(ValueError, match=r"both results would be .*a\.webp; .*--name \"{stem}_{ext}\""):
        plan([str(tmp_path / "in")], str(tmp_path / "out"), None, ".webp")
    jobs = plan([str(tmp_path / "in")], str(tmp_path / "out"), "{stem}_{ext}", ".webp")
    assert {job.target.name for job in jobs if job.target} == {"a_jpg.webp", "a_png.webp"}


def test_a_template_without_a_word_takes_no_photo_for_a_result(tmp_path: Path) -> None:
    for name in ("IMG_0001.jpg", "portrait.jpg", "portrait_7.jpg", "portrait_8.jpg"):
        save_photo(tmp_path / name)
    jobs = plan([str(tmp_path / "*.jpg")], None, "{stem}_{seed}")
    assert {job.source.name for job in jobs if job.source} == {"IMG_0001.jpg", "portrait.jpg"}


def test_a_pattern_leaves_out_what_has_a_name_of_ours(tmp_path: Path) -> None:
    for name in ("a.png", "a_x4.png", "x4.png"):
        save_photo(tmp_path / name)
    jobs = plan([str(tmp_path / "*.png")], None, "{stem}_x4")
    assert {job.target.name for job in jobs if job.target} == {"a_x4.png", "x4_x4.png"}


def test_a_file_and_a_template_do_not_go_together(tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"--name \{stem\}: -o .* names the file already"):
        plan([str(photo)], str(tmp_path / "b.png"), "{stem}")


@pytest.mark.parametrize(
    ("inputs", "out", "name", "message"),
    [
        (["-"], None, None, "needs -o FILE or -o -"),
        (["-", "a.png"], "-", None, "is for one image"),
        (["a.png", "a.png"], "-", None, "is for one image"),
        (["*.png"], "-", None, "takes one image file"),
        (["."], "-", None, "takes one image file"),
        (["-"], ".", None, "is a folder; name a file"),
        (["-"], "out", None, "no known image type"),
        (["a.png"], "-", "{stem}", "has no names"),
    ],
)
def test_what_pipes_cannot_do(
    inputs: list[str], out: str | None, name: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_photo(Path("a.png"))
    with pytest.raises(ValueError, match=message):
        plan(inputs, out, name)


def test_a_file_called_dash_is_reached_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_photo(Path("a.png")).rename("-")
    (job,) = plan(["./-"], "out.png")
    assert job.source == Path("-")
