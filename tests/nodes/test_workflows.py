"""The example workflows as files: complete, consistent, and made of nodes that everybody has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "example_workflows"
NAMES = ("batch_of_frames", "edit_the_uncertainty", "upscale_a_photo")
OURS = ("LoadUPSR", "EstimateUncertainty", "UPSRExamplePhoto", "UPSRSample")
# Of ComfyUI itself; more may be used, but no other pack's.
CORE = {
    *("SaveImage", "PreviewImage", "ImageScaleBy", "ImageCrop", "ImageBatch"),
    *("MaskPreview", "SolidMask", "MaskComposite", "MarkdownNote"),
}
SOCKETS = {"upsr_model", "image", "noise_weight", "sr"}
SEED, AFTER_GENERATE = 0, 1
TITLE_BAR = 30
ABSOLUTE_PATH = re.compile(r"(?:^|[\s\"'(=])(?:/\w|~/|\w:[\\/]|\\\\)")


def graph_of(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def nodes_of(name: str, node_type: str) -> list[dict[str, Any]]:
    return [node for node in graph_of(name)["nodes"] if node["type"] == node_type]


def strings_in(value: Any) -> Iterator[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_in(item)


def test_there_are_three_each_with_a_picture() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {f"{name}.{ending}" for name in NAMES for ending in ("json", "jpg")}


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_is_small_and_shows_something(name: str) -> None:
    path = FOLDER / f"{name}.jpg"
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert all(200 <= side <= 700 for side in picture.size)
        assert min(ImageStat.Stat(picture.convert("RGB")).stddev) > 20
    assert path.stat().st_size < 150_000


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_needed_that_a_new_comfyui_lacks(name: str) -> None:
    types = {node["type"] for node in graph_of(name)["nodes"]}
    assert types <= {*OURS, *CORE}
    # LoadImage would need a file in the input folder, and ComfyUI has a drawing there and no photo.
    assert types >= {"LoadUPSR", "UPSRSample", "UPSRExamplePhoto", "SaveImage", "MarkdownNote"}
    assert ("EstimateUncertainty" in types) == (name == "edit_the_uncertainty")
    assert [node["widgets_values"] for node in nodes_of(name, "LoadUPSR")] == [["upsr-tiny-x4 (bundled)", "auto", ""]]
    (note,) = nodes_of(name, "MarkdownNote")
    assert "**Example Photo** comes with UPSR" in note["widgets_values"][0], (
        "the note says where the picture comes from"
    )


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_fixed_and_every_widget_has_its_value(name: str) -> None:
    texts = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    for node_type in OURS:
        for node in nodes_of(name, node_type):
            widgets = [key for key in texts[node_type].get("inputs", {}) if key not in SOCKETS]
            if "seed" in widgets:
                assert isinstance(node["widgets_values"][SEED], int)
                assert node["widgets_values"][AFTER_GENERATE] == "fixed"
                widgets.insert(AFTER_GENERATE, "control_after_generate")
            assert len(node["widgets_values"]) == len(widgets)


@pytest.mark.parametrize("name", NAMES)
def test_links_agree_at_both_ends(name: str) -> None:
    graph = graph_of(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert graph["version"] == 0.4
    assert len(nodes) == len(graph["nodes"])
    assert max(nodes) <= graph["last_node_id"]
    assert max(link[0] for link in graph["links"]) <= graph["last_link_id"]
    for link, source, output, target, slot, kind in graph["links"]:
        assert link in nodes[source]["outputs"][output]["links"]
        assert nodes[target]["inputs"][slot]["link"] == link
        assert kind == nodes[source]["outputs"][output]["type"] == nodes[target]["inputs"][slot]["type"]
    ends = [slot["link"] for node in nodes.values() for slot in node.get("inputs", []) if slot.get("link")]
    starts = [link for node in nodes.values() for slot in node.get("outputs", []) for link in slot["links"] or []]
    assert sorted(ends) == sorted(starts) == sorted(link[0] for link in graph["links"])


@pytest.mark.parametrize("name", NAMES)
def test_every_node_runs_and_gives_its_result_to_another_or_the_user(name: str) -> None:
    ends_here = {"SaveImage", "PreviewImage", "MaskPreview", "MarkdownNote"}
    for node in graph_of(name)["nodes"]:
        assert node["mode"] == 0, "neither muted nor bypassed"
        linked = any(slot["links"] for slot in node.get("outputs", []))
        assert linked or node["type"] in ends_here, node["type"]


@pytest.mark.parametrize("name", NAMES)
def test_no_nodes_cover_each_other(name: str) -> None:
    boxes = [(*node["pos"], *node["size"]) for node in graph_of(name)["nodes"]]
    for i, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[:i]:
            apart_x = x >= other_x + other_width or other_x >= x + width
            apart_y = y - TITLE_BAR >= other_y + other_height or other_y - TITLE_BAR >= y + height
            assert apart_x or apart_y


@pytest.mark.parametrize("name", NAMES)
def test_no_path_of_a_machine(name: str) -> None:
    assert [text for text in strings_in(graph_of(name)) if ABSOLUTE_PATH.search(text)] == []


@pytest.mark.parametrize("text", ["/home/me/a.png", "see ~/a.png", "C:\\a.png", "(/tmp/x)", "\\\\server\\share"])
def test_paths_are_told_from_other_texts(text: str) -> None:
    assert ABSOLUTE_PATH.search(text)
    assert not ABSOLUTE_PATH.search("`examples/chelsea_lr.png`, **and/or** 1/4; see: models/upsr")
