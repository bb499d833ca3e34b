"""The real frontend in a headless Chromium: each example opens, runs and shows its result."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from tests.comfyui.server import PACK_NAME, ComfyServer

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))
NODE_IDS = ("LoadUPSR", "EstimateUncertainty", "UPSRExamplePhoto", "UPSRSample")
# Of every node that shows pictures: how many, and their size.
RESULTS = {
    "upscale_a_photo": [[448, 300]],
    "edit_the_uncertainty": [[448, 300]],
    "batch_of_frames": [[384, 256]] * 3,
}
# One of g, two of the denoiser; where Estimate Uncertainty has run g, two.
CALLS_PER_FRAME = {"upscale_a_photo": 3, "edit_the_uncertainty": 2, "batch_of_frames": 3}
LOAD_MS, RUN_MS, SOON_MS = 120_000, 150_000, 30_000
EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
# A dialog of whatever kind, and what pops up in a corner to complain, in older and newer frontends.
COMPLAINTS = "[role=dialog], .p-toast-message-error, .p-toast-message-warn, [data-testid=error-overlay]"
WATCH = """() => {
    window.seen = {progress: [], previews: [], titles: [], ending: null};
    app.api.addEventListener('progress', ({detail}) => seen.progress.push([detail.node, detail.value, detail.max]));
    app.api.addEventListener('b_preview_with_metadata', ({detail}) => seen.previews.push(detail.displayNodeId));
    for (const ending of ['execution_success', 'execution_error', 'execution_interrupted'])
        app.api.addEventListener(ending, ({detail}) => seen.ending = [ending, detail.exception_message ?? '']);
    const note = () => seen.titles.push(document.title);
    new MutationObserver(note).observe(document.head, {childList: true, subtree: true, characterData: true});
}"""
PICTURES = """() => app.graph.nodes
    .filter(node => ['SaveImage', 'PreviewImage', 'MaskPreview'].includes(node.type))
    .map(node => [node.id, (node.imgs ?? []).map(image => [image.naturalWidth, image.naturalHeight])])"""
RECTANGLE = """type => {
    const node = app.graph.nodes.find(node => node.type === type);
    const {scale, offset} = app.canvas.ds, corner = app.canvas.canvas.getBoundingClientRect();
    return {
        x: corner.left + (node.pos[0] + offset[0]) * scale, y: corner.top + (node.pos[1] + offset[1]) * scale,
        width: node.size[0] * scale, height: node.size[1] * scale,
    };
}"""
# Of every node as it is shown: its type, and left, top, right and bottom on the canvas, with its title.
BOXES = """() => app.graph.nodes.map(node => {
    const element = document.querySelector(`[data-node-id='${node.id}']`);
    const {scale, offset} = app.canvas.ds, [x, y] = node.pos, [width, height] = node.size;
    if (!element) return [node.type, [x, y - LiteGraph.NODE_TITLE_HEIGHT, x + width, y + height]];
    const {left, top, right, bottom} = element.getBoundingClientRect();
    return [node.type, [left, top, right, bottom].map((at, i) => at / scale - offset[i % 2])];
})"""
TEXTS = """() => app.graph.nodes.map(
    node => [node.type, node.getTitle(), (node.widgets ?? []).map(widget => [widget.name, widget.label])]
)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium: the one that CHROMIUM names, or the path holds."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need: pip install playwright")
    found = [os.environ.get("CHROMIUM"), *(shutil.which(name) for name in EXECUTABLES)]
    executable = next((path for path in found if path), None)
    if executable is None:
        pytest.skip("the browser tests need Chromium: install it, or set CHROMIUM to its path")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=executable, args=flags)
        yield chromium
        chromium.close()


@contextmanager
def frontend(browser: Any, server: ComfyServer, locale: str = "en") -> Iterator[Any]:
    """The page, ready to use, for somebody who has seen it before: a newcomer is first shown the templates."""
    settings = {"Comfy.TutorialCompleted": True, "Comfy.Locale": locale}
    assert server.post("/settings", settings)[0] == 200
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    try:
        page.goto(server.url)
        page.wait_for_function("window.app?.graph && app.vueAppReady && app.graph.nodes.length > 0", timeout=LOAD_MS)
        yield page
    finally:
        page.close()


@pytest.fixture
def page(server: ComfyServer, browser: Any) -> Iterator[Any]:
    """The frontend in English."""
    with frontend(browser, server) as opened:
        yield opened


def workflow(name: str) -> dict[str, Any]:
    """An example as saved."""
    return json.loads((ROOT / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))


def open_example(page: Any, name: str) -> None:
    """Load a template as the server has it."""
    page.evaluate(
        """async ([folder, name]) => {
            const response = await fetch(`/api/workflow_templates/${folder}/${name}.json`);
            await app.loadGraphData(await response.json(), true, true, name);
        }""",
        [PACK_NAME, name],
    )
    wait_for_nodes(page, workflow(name))


def wait_for_nodes(page: Any, graph: dict[str, Any]) -> None:
    """Until the graph that was loaded is there."""
    types = sorted(node["type"] for node in graph["nodes"])
    page.wait_for_function(
        "types => String(app.graph.nodes.map(node => node.type).sort()) === String(types)", arg=types, timeout=SOON_MS
    )


def complaints(page: Any) -> list[str]:
    """Dialogs and warnings that are to be seen, after they had the time to come up."""
    page.wait_for_timeout(1000)
    return [item.inner_text() for item in page.locator(COMPLAINTS).all() if item.is_visible()]


def press_run(page: Any) -> None:
    page.get_by_role("button", name="Run", exact=True).first.click()


def picture_of(page: Any, node_type: str) -> Image.Image:
    """What the page shows where a node is."""
    page.wait_for_timeout(1000)
    return Image.open(io.BytesIO(page.screenshot(clip=page.evaluate(RECTANGLE, node_type)))).convert("RGB")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_opens_runs_and_shows_its_result(page: Any, name: str) -> None:
    open_example(page, name)
    assert complaints(page) == []
    assert page.evaluate("app.graph.nodes.every(node => node.type in LiteGraph.registered_node_types)")
    opened = json.loads(page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).workflow)"))
    saved = workflow(name)
    assert opened["links"] == saved["links"]
    for key in ("id", "type", "title", "widgets_values"):
        # A node without widgets has none or an empty list of values.
        assert [node.get(key) or None for node in opened["nodes"]] == [node.get(key) or None for node in saved["nodes"]]
    assert all(not pictures for _, pictures in page.evaluate(PICTURES))
    assert covered(page) == []
    empty = picture_of(page, "SaveImage")

    page.evaluate(WATCH)
    press_run(page)
    page.wait_for_function("seen.ending !== null", timeout=RUN_MS)
    assert page.evaluate("seen.ending") == ["execution_success", ""]
    page.wait_for_function(
        f"() => ({PICTURES})().every(([id, images]) => images.length && images.every(size => size[0] > 0))",
        timeout=SOON_MS,
    )
    for node, sizes in page.evaluate(PICTURES):
        assert sizes == RESULTS[name], f"node {node}"
    difference = ImageChops.difference(picture_of(page, "SaveImage"), empty)
    assert sum(ImageStat.Stat(difference).mean) / 3 > 20, "the result is not to be seen"

    sampler = str(next(node["id"] for node in saved["nodes"] if node["type"] == "UPSRSample"))
    seen = page.evaluate("seen")
    values = [(value, most) for node, value, most in seen["progress"] if node == sampler]
    assert values == sorted(values)
    assert values[-1] == (CALLS_PER_FRAME[name] * len(RESULTS[name]),) * 2
    assert sampler in seen["previews"]
    assert any("%" in title for title in seen["titles"]), "the tab's title shows how far it is"
    assert complaints(page) == []
    assert covered(page) == [], "with their pictures"


def covered(page: Any) -> list[tuple[str, str]]:
    """Types of nodes that cover each other on the canvas."""
    boxes = page.evaluate(BOXES)
    return [
        (kind, other_kind)
        for i, (kind, (left, top, right, bottom)) in enumerate(boxes)
        for other_kind, other in boxes[:i]
        if left < other[2] and other[0] < right and top < other[3] and other[1] < bottom
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_in_nodes_2(page: Any, name: str) -> None:
    """Where nodes are HTML and not painted on the canvas, as newer frontends can."""
    version = page.evaluate("__COMFYUI_FRONTEND_VERSION__")
    if tuple(int(part) for part in version.split(".")[:2]) < (1, 30):
        pytest.skip(f"frontend {version} has no finished Nodes 2.0")
    page.evaluate("app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    try:
        open_example(page, name)
        page.wait_for_function("document.querySelectorAll('[data-node-id]').length === app.graph.nodes.length")
        assert covered(page) == []
        page.evaluate(WATCH)
        press_run(page)
        page.wait_for_function("seen.ending !== null", timeout=RUN_MS)
        assert page.evaluate("seen.ending") == ["execution_success", ""]
        for node in workflow(name)["nodes"]:
            if node["type"] in ("SaveImage", "PreviewImage", "MaskPreview"):
                page.wait_for_function(
                    "([id, [width, height]]) => [...document.querySelectorAll(`[data-node-id='${id}'] img`)].some("
                    "image => image.naturalWidth === width && image.naturalHeight === height)",
                    arg=[node["id"], RESULTS[name][0]],
                    timeout=SOON_MS,
                )
        assert complaints(page) == []
        assert covered(page) == [], "with their pictures"
    finally:
        page.evaluate("app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")


def test_the_templates_are_found_in_the_dialog(page: Any) -> None:
    page.get_by_role("button", name="Templates").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text(PACK_NAME, exact=True).first.click()
    cards = {name: dialog.get_by_test_id(f"template-workflow-{name}") for name in EXAMPLES}
    for name, card in cards.items():
        card.wait_for(timeout=SOON_MS)
        card.scroll_into_view_if_needed()
        page.wait_for_function(
            "name => document.querySelector(`[role=dialog] img[alt=${name}]`)?.naturalWidth > 0",
            arg=name,
            timeout=SOON_MS,
        )
    cards["edit_the_uncertainty"].click()
    wait_for_nodes(page, workflow("edit_the_uncertainty"))
    assert complaints(page) == []


def test_what_is_wrong_with_a_workflow_is_complained_of(page: Any) -> None:
    """That nothing is to be seen elsewhere means something."""
    graph = workflow("upscale_a_photo")
    for node in graph["nodes"]:
        if node["type"] == "UPSRExamplePhoto":
            node["type"] = "LoadImage"
            node["widgets_values"] = ["gone.png", "image"]
    page.evaluate("graph => app.loadGraphData(graph)", graph)
    wait_for_nodes(page, graph)
    press_run(page)
    page.locator(COMPLAINTS).first.wait_for(timeout=SOON_MS)
    page.keyboard.press("Escape")

    graph["nodes"][0]["type"] = "NodeOfNobody"
    page.evaluate("graph => app.loadGraphData(graph)", graph)
    page.locator(COMPLAINTS).filter(has_text="NodeOfNobody").first.wait_for(timeout=SOON_MS)


@pytest.mark.parametrize(("locale", "page_name"), [("en", "{}.md"), ("zh", "{}/zh.md")])
def test_the_help_pages_open(server: ComfyServer, browser: Any, locale: str, page_name: str) -> None:
    with frontend(browser, server, locale) as page:
        open_example(page, "edit_the_uncertainty")
        for node_id in NODE_IDS:
            page.evaluate("type => app.canvas.selectNode(app.graph.nodes.find(node => node.type === type))", node_id)
            # Not where the mouse would: the help page of the node before may cover it.
            page.get_by_test_id("info-button").dispatch_event("click")
            text = (ROOT / "nodes" / "web" / "docs" / page_name.format(node_id)).read_text(encoding="utf-8")
            headings = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
            assert len(headings) > 1
            for heading in headings:
                page.locator(".node-help-content").get_by_text(heading, exact=True).first.wait_for(timeout=SOON_MS)


@pytest.mark.parametrize("locale", ["en", "zh"])
def test_the_nodes_speak_both_languages(server: ComfyServer, browser: Any, locale: str) -> None:
    texts = json.loads((ROOT / "locales" / locale / "nodeDefs.json").read_text(encoding="utf-8"))
    with frontend(browser, server, locale) as page:
        open_example(page, "edit_the_uncertainty")
        shown = {node: (title, dict(widgets)) for node, title, widgets in page.evaluate(TEXTS) if node in texts}
    assert set(shown) == set(texts)
    for node, (title, labels) in shown.items():
        assert title == texts[node]["display_name"]
        for name, text in texts[node].get("inputs", {}).items():
            if name in labels:
                assert labels[name] == text["name"]
