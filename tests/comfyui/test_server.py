"""A real server: what it tells the browser about the pack."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from tests.comfyui.in_process import BUNDLED, NODE_IDS, ROOT
from tests.comfyui.server import PACK_NAME, ComfyServer

EXAMPLES = sorted(path.stem for path in (ROOT / "example_workflows").glob("*.json"))


def test_the_pack_is_imported_without_a_complaint(server: ComfyServer) -> None:
    assert f"custom_nodes/{PACK_NAME}" in server.start_log
    assert "IMPORT FAILED" not in server.start_log
    assert "Traceback" not in server.start_log


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_nodes_explain_every_input_and_output(server: ComfyServer, node_id: str) -> None:
    info = server.get(f"/object_info/{node_id}")[node_id]
    assert info["python_module"] == f"custom_nodes.{PACK_NAME}"
    assert info["display_name"]
    assert info["description"]
    inputs = {name: spec for kind in ("required", "optional") for name, spec in info["input"].get(kind, {}).items()}
    for name, spec in inputs.items():
        assert spec[1]["tooltip"], name
    assert len(info["output_tooltips"]) == len(info["output_name"]) == len(info["output"]) > 0
    assert all(info["output_tooltips"])
    assert all(info["output_name"])


def test_nodes_fit_together(server: ComfyServer) -> None:
    info = {name: server.get(f"/object_info/{name}")[name] for name in NODE_IDS}
    assert info["LoadUPSR"]["output"] == ["UPSR_MODEL"]
    assert info["EstimateUncertainty"]["output"] == ["MASK", "IMAGE", "IMAGE", "MASK", "UPSR_SR"]
    assert info["UPSRSample"]["output"] == ["IMAGE"]
    assert info["UPSRExamplePhoto"]["output"] == ["IMAGE"]
    assert info["UPSRSample"]["input"]["optional"]["noise_weight"][0] == "MASK"
    assert info["UPSRSample"]["input"]["optional"]["sr"][0] == "UPSR_SR"
    for name in ("EstimateUncertainty", "UPSRSample"):
        assert info[name]["input"]["required"]["upsr_model"][0] == "UPSR_MODEL"


def test_help_pages_are_served(server: ComfyServer) -> None:
    for node_id in NODE_IDS:
        page = server.get_bytes(f"/extensions/{PACK_NAME}/docs/{node_id}.md").decode()
        assert page == (server.pack / "nodes" / "web" / "docs" / f"{node_id}.md").read_text()
        for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page):
            assert server.get_bytes(f"/extensions/{PACK_NAME}/docs/{target}"), target


@pytest.mark.parametrize("language", ["en", "zh"])
def test_texts_are_served_in_both_languages_for_what_there_is(server: ComfyServer, language: str) -> None:
    texts = server.get("/i18n")[language]["nodeDefs"]
    for node_id in NODE_IDS:
        info = server.get(f"/object_info/{node_id}")[node_id]
        inputs = [name for kind in ("required", "optional") for name in info["input"].get(kind, {})]
        spoken = texts[node_id].get("inputs", {})
        assert set(spoken) == set(inputs)
        assert set(texts[node_id]["outputs"]) == {str(index) for index in range(len(info["output"]))}
        assert texts[node_id]["display_name"]
        assert all(entry["name"] and entry["tooltip"] for entry in spoken.values())
        if language == "en":
            for kind in ("required", "optional"):
                for name, spec in info["input"].get(kind, {}).items():
                    assert spoken[name]["tooltip"] == spec[1]["tooltip"], name
            assert texts[node_id]["display_name"] == info["display_name"]


def test_models_are_listed_from_both_folders(server: ComfyServer) -> None:
    own = server.base / "models" / "upsr"
    assert own.is_dir(), "made at the first start"
    source = ROOT / "upsr_core" / "checkpoints" / "upsr-tiny-x4"
    for folder in (own / "here", server.extra / "there"):
        shutil.copytree(source, folder)
    (server.extra / "lonely.pth").write_bytes(b"x")
    try:
        options = server.get("/object_info/LoadUPSR")["LoadUPSR"]["input"]["required"]["model_name"][1]["options"]
        assert options[0] == BUNDLED
        assert {"here", "there"} < set(options)
        weights = "unet/diffusion_pytorch_model.safetensors"
        assert {f"here/{weights}", f"there/{weights}", "lonely.pth"} <= set(server.get("/models/upsr"))
    finally:
        shutil.rmtree(own / "here")
        shutil.rmtree(server.extra / "there")
        (server.extra / "lonely.pth").unlink()


def test_templates_are_offered_with_a_picture(server: ComfyServer) -> None:
    assert EXAMPLES, "example_workflows/ is empty"
    assert sorted(server.get("/workflow_templates")[PACK_NAME]) == EXAMPLES
    for name in EXAMPLES:
        workflow = json.loads(server.get_bytes(f"/api/workflow_templates/{PACK_NAME}/{name}.json"))
        assert workflow["nodes"]
        assert server.get_bytes(f"/api/workflow_templates/{PACK_NAME}/{name}.jpg")[:2] == b"\xff\xd8"
