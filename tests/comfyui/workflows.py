"""Prompts for the server: built here, or made of workflows that the browser has saved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.comfyui.in_process import BUNDLED, SAMPLE_DEFAULTS

Prompt = dict[str, dict[str, Any]]
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
NOTES = ("Note", "MarkdownNote")


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt; a tuple among its inputs is a link to a node and its output."""
    inputs = {name: list(value) if isinstance(value, tuple) else value for name, value in inputs.items()}
    return {"class_type": class_type, "inputs": inputs}


def upscale_prompt(file: str, *, model: str = BUNDLED, dtype: str = "fp32", **sample: Any) -> Prompt:
    """Load an image (1) and a model (2), upscale (3) and save (4)."""
    inputs = {**SAMPLE_DEFAULTS, **sample}
    return {
        "1": node("LoadImage", image=file),
        "2": node("LoadUPSR", model_name=model, dtype=dtype),
        "3": node("UPSRSample", upsr_model=("2", 0), **{"image": ("1", 0), **inputs}),
        "4": node("SaveImage", images=("3", 0), filename_prefix="upscaled"),
    }


def estimate_prompt(edit: dict[str, Any]) -> Prompt:
    """Upscale with the noise weight (5) edited by a mask node (6), and look at the uncertainty (7 to 10)."""
    prompt = upscale_prompt("small.png", steps=1, noise_weight=("6", 0))
    prompt["5"] = node("EstimateUncertainty", upsr_model=("2", 0), image=("1", 0), psi_max=0.1, weight_min=0.4)
    prompt["6"] = edit
    prompt["7"] = node("MaskToImage", mask=("5", 0))
    for key, source in (("8", ("7", 0)), ("9", ("5", 1)), ("10", ("5", 2))):
        prompt[key] = node("PreviewImage", images=source)
    return prompt


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> Prompt:
    """A workflow in the graph format as the API's prompt, as the browser makes it when Run is pressed.

    Args:
        workflow: as saved; only plain nodes, none of them muted or bypassed.
        object_info: what the server says of its nodes.
    """
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt: Prompt = {}
    for item in workflow["nodes"]:
        if item["type"] in NOTES:
            continue
        assert item.get("mode", 0) == 0, f"node {item['id']} is muted or bypassed"
        info = object_info[item["type"]]
        inputs = dict(_widget_values(item, info))
        for slot in item.get("inputs", []):
            if slot.get("link") is not None:
                inputs[slot["name"]] = sources[slot["link"]]
        prompt[str(item["id"])] = {"class_type": item["type"], "inputs": inputs}
    return prompt


def _widget_values(item: dict[str, Any], info: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The saved values by their inputs' names; there must be just as many as there are widgets."""
    values = iter(item.get("widgets_values", []))
    for kind in ("required", "optional"):
        for name in info["input_order"].get(kind, []):
            spec = info["input"][kind][name]
            type_, options = spec[0], (spec[1] if len(spec) > 1 else {})
            if options.get("forceInput") or not (isinstance(type_, list) or type_ in WIDGETS):
                continue
            yield name, next(values)
            # Widgets that the browser adds: what becomes of the seed after a run, and the button for uploads.
            if options.get("control_after_generate"):
                assert next(values) == "fixed", f"node {item['id']}: {name} is not fixed"
            if options.get("image_upload"):
                assert next(values) == "image"
    assert not list(values), f"node {item['id']} ({item['type']}) has more values than widgets"
