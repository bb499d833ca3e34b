from __future__ import annotations

from pathlib import Path

import pytest

from upsr_core.evaluation.methods import parse_methods


def test_every_part_of_a_method_is_read(tmp_path: Path) -> None:
    texts = ["bicubic", "g", "upsr:models/big,steps=1,noise_strength=0.5", "Mine=upsr", f"folder:{tmp_path}"]
    methods = parse_methods(texts)
    assert [m.kind for m in methods] == ["bicubic", "g", "upsr", "upsr", "folder"]
    labels = [m.label for m in methods]
    assert labels == ["bicubic", "g", "upsr:big, steps=1, noise_strength=0.5", "Mine", tmp_path.name]
    assert methods[2].source == "models/big"
    assert methods[2].options == {"steps": 1, "noise_strength": 0.5}
    assert [m.is_random for m in methods] == [False, False, True, True, False]
    assert methods[2].folder_name == "upsr_big_steps=1_noise_strength=0.5"


def test_a_file_alone_says_what_it_is(tmp_path: Path) -> None:
    pytest.importorskip("ncnn")
    pytest.importorskip("spandrel")
    for name in ("a.param", "a.bin", "b.pth"):
        (tmp_path / name).touch()
    ncnn, same, spandrel = parse_methods(
        [f"{tmp_path}/a.param,tile=64", f"Other=ncnn:{tmp_path}/a", f"{tmp_path}/b.pth"]
    )
    assert (ncnn.kind, ncnn.source, ncnn.options) == ("ncnn", f"{tmp_path}/a.param", {"tile": 64})
    assert (same.label, same.source) == ("Other", ncnn.source)
    assert (spandrel.kind, spandrel.label) == ("spandrel", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bicubi", r"bicubi: no such method; use bicubic, g, upsr"),
        ("upsr,step=1", r"upsr,step=1: 'step' is no option of upsr; it has steps, tile"),
        ("upsr,steps=0", r"upsr,steps=0: steps=0 is out of its range"),
        ("upsr,stochasticity=2", r"stochasticity=2 is out of its range"),
        ("upsr,color_fix=magic", r"color_fix=magic is out of its range"),
        ("g,steps=1", r"'steps' is no option of g; it has no options"),
        ("bicubic:x", r"bicubic:x: bicubic takes no source"),
        ("ncnn", r"ncnn: names no source; write ncnn:PATH"),
        ("ncnn:nowhere/a", r"nowhere/a\.param: no such file; an ncnn model is a pair NAME\.param and NAME\.bin"),
        ("nowhere.pth", r"nowhere\.pth: no such checkpoint file"),
        ("folder:nowhere", r"nowhere: no such folder of images"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_methods([text])


def test_two_of_one_name_need_names() -> None:
    with pytest.raises(ValueError, match="upsr: a second method called upsr; write NAME=upsr"):
        parse_methods(["upsr", "upsr"])
    assert len(parse_methods(["upsr", "again=upsr"])) == 2
