"""The page with the slider, in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from upsr_core.cli.main import main

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
PAINTED = "() => ['above', 'below'].every(id => document.getElementById(id).naturalWidth > 0)"


@pytest.fixture(scope="module")
def page_file(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two photos; a black one and a white one, so that it is seen which part of the screen shows what."""
    folder = tmp_path_factory.mktemp("page")
    for place, level in {"hr": 0, "done": 255}.items():
        (folder / place).mkdir()
        for name in ("a.png", "</script>&.png".replace("/", "")):
            Image.new("RGB", (128, 64), (level, level, level)).save(folder / place / name)
    command = ["evaluate", str(folder / "hr"), "-o", str(folder / "out"), "--preset", "bicubic", "--device", "cpu"]
    methods = ["-m", "bicubic", f"White=folder:{folder / 'done'}", "--metrics", "psnr", "--page-images", "2"]
    assert main([*command, *methods]) == 0
    return folder / "out" / "page.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium: the one that CHROMIUM names, or the path holds."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need: pip install playwright")
    found = [os.environ.get("CHROMIUM"), *(shutil.which(name) for name in EXECUTABLES)]
    executable = next((path for path in found if path), None)
    if executable is None:
        pytest.skip("the browser tests need Chromium: install it, or set CHROMIUM to its path")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, loaded; afterwards it must have complained of nothing and asked for nothing."""
    page = browser.new_page(viewport={"width": 900, "height": 700})
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_function(PAINTED)
    yield page
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]
    page.close()


def levels(page: Any) -> np.ndarray:
    """Red of the line of pixels in the middle of the picture, as the screen shows it."""
    from io import BytesIO

    picture = Image.open(BytesIO(page.locator("#stage").screenshot())).convert("RGB")
    return np.asarray(picture)[picture.height // 2, :, 0]


def test_slider_parts_the_two_methods(page: Any) -> None:
    assert page.locator("#left option:checked").inner_text() == "LR"
    assert page.locator("#right option:checked").inner_text() == "White"
    for share in (25, 75):
        page.locator("#slider").fill(str(share))
        line = levels(page)
        assert len(line) == 128
        assert (line[: int(1.28 * share) - 4] == 0).all()
        assert (line[int(1.28 * share) + 4 :] == 255).all()


def test_pointer_moves_the_line(page: Any) -> None:
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 10)
    page.mouse.up()
    page.mouse.move(box["x"] + 50, box["y"] + 10)
    assert float(page.locator("#slider").input_value()) == pytest.approx(100 * 100 / 128, abs=1)


def test_methods_images_and_size_can_be_chosen(page: Any) -> None:
    page.locator("#left").select_option(label="White")
    page.locator("#right").select_option(label="real")
    page.locator("#slider").fill("50")
    line = levels(page)
    assert (line[:60] == 255).all()
    assert (line[68:] == 0).all()
    page.locator("#zoom").select_option("2")
    assert page.locator("#stage").bounding_box()["width"] == 256
    names = page.locator("#image option").all_inner_texts()
    assert names == ["<script>&", "a"]
    page.locator("#image").select_option(label="<script>&")
    page.wait_for_function(PAINTED)
    table = page.locator("#scores tr").all_inner_texts()
    assert len(table) == 4
    assert table[1].split() == ["bicubic", "inf"]
    assert page.locator("#scores tr.left").inner_text().startswith("White")
