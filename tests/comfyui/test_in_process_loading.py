"""In a real ComfyUI's process: the pack loads, lists models and loads them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.comfyui.in_process import BUNDLED, NODE_IDS, ROOT, HostedPack, photo
from tests.core.conftest import DATA, Golden
from upsr_core.published.conversion import convert_published

LOAD = """
import asyncio, os, sys
checkout, base, pack = sys.argv[1:]
sys.path.insert(0, checkout)
import comfy.cli_args
comfy.cli_args.args.cpu = True
comfy.cli_args.args.base_directory = base
import nodes, torch
path, before, state = list(sys.path), set(sys.modules), torch.get_rng_state()
assert asyncio.run(nodes.load_custom_node(pack, module_parent="custom_nodes"))
new = {name.split(".")[0] for name in set(sys.modules) - before if not name.startswith(pack.replace(".", "_x_"))}
assert "diffusers" not in sys.modules
assert sys.path == path and torch.equal(torch.get_rng_state(), state)
print("NEW", *sorted(new))
print("PARTS", *(name for name in sys.modules if name.startswith("upsr_core.")))
load = nodes.NODE_CLASS_MAPPINGS["LoadUPSR"]
name = load.INPUT_TYPES()["required"]["model_name"][1]["default"]
with torch.inference_mode():
    model = load.PREPARE_CLASS_CLONE({}).EXECUTE_NORMALIZED(model_name=name, dtype="auto").args[0]
copies = {os.path.realpath(module.__file__) for key, module in sys.modules.items()
          if key.endswith("upsr_core") and getattr(module, "__file__", None)}
assert copies == {os.path.realpath(os.path.join(pack, "upsr_core", "__init__.py"))}, copies
assert len([key for key in sys.modules if key.endswith("pipeline_upsr")]) == 1
assert type(model.pipe) is sys.modules["upsr_core"].UPSRPipeline
assert not [key for key in sys.modules if key.split(".")[0] == "trainer"]
"""


def test_loading_the_pack_imports_nothing_heavy_and_one_copy_of_the_library(checkout: Path, tmp_path: Path) -> None:
    """In a process of its own, from a folder where nothing finds upsr_core by itself."""
    pack = tmp_path / "custom_nodes" / "ComfyUI-UPSR"
    pack.parent.mkdir()
    pack.symlink_to(ROOT)
    command = [sys.executable, "-c", LOAD, str(checkout), str(tmp_path), str(pack)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    (new,) = (line.split()[1:] for line in lines if line.startswith("NEW"))
    heavy = {"accelerate", "cv2", "diffusers", "huggingface_hub", "torchvision", "transformers"}
    assert not heavy & set(new), new
    assert "upsr_core" in new
    (parts,) = (set(line.split()[1:]) for line in lines if line.startswith("PARTS"))
    light = {"upsr_core.choices", "upsr_core.diffusers_hook", "upsr_core.published", "upsr_core.published.roles"}
    assert parts <= light, "upsr_core is bound, none of its heavy parts is imported"
    assert (tmp_path / "models" / "upsr").is_dir()


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_schemas_are_valid_and_explain_everything(pack: HostedPack, node_id: str) -> None:
    schema = pack.classes[node_id].GET_SCHEMA()
    schema.validate()
    assert schema.display_name
    assert schema.description
    for item in (*schema.inputs, *schema.outputs):
        assert item.tooltip, item.id
    assert all(output.display_name for output in schema.outputs)
    info = pack.classes[node_id].GET_NODE_INFO_V1()
    assert info["category"] == "image/upscaling"
    assert info["python_module"] == "custom_nodes.ComfyUI-UPSR"


def snapshot(*folders: Path) -> dict[str, tuple[str, int]]:
    """Content and time of change of every file, and the folders."""
    files = [path for folder in folders for path in folder.rglob("*")]
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "", path.stat().st_mtime_ns)
        for path in files
    }


@pytest.fixture
def user_files(pack: HostedPack) -> Iterator[list[Path]]:
    """The two folders for models, emptied at the end."""
    folders = [pack.models, pack.extra]
    yield folders
    for folder in folders:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_pair(golden: Golden, folder: Path, suffix: str, config: bool = True) -> None:
    """Published checkpoints, named so that the names don't tell which is which."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in (("first", "sr_net"), ("second", "denoiser")):
        if suffix == ".pth":
            torch.save({"params_ema": golden.weights(network)}, folder / f"{name}.pth")
        else:
            save_file(golden.weights(network), folder / f"{name}.safetensors")
    if config:
        shutil.copy(DATA / "golden_config.json", folder / "config.json")


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden()


def test_models_of_all_folders_are_listed(pack: HostedPack, golden: Golden, user_files: list[Path]) -> None:
    assert pack.options() == [BUNDLED]
    shutil.copytree(ROOT / "upsr_core" / "checkpoints" / "upsr-tiny-x4", pack.models / "mine")
    write_pair(golden, pack.extra / "published", ".pth")
    assert set(pack.options()) == {BUNDLED, "mine", "published"}
    assert pack.classes["LoadUPSR"].validate_inputs(model_name="published") is True


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("where", ["models", "extra"])
def test_a_published_pair_computes_what_its_conversion_does(
    pack: HostedPack, golden: Golden, user_files: list[Path], tmp_path: Path, suffix: str, where: str
) -> None:
    folder = getattr(pack, where) / "published"
    write_pair(golden, folder, suffix)
    before = snapshot(*user_files)
    image = photo(16, 24)
    seen = pack.sample(pack.load("published"), image, steps=2)
    assert snapshot(*user_files) == before
    pipe = convert_published(folder / f"second{suffix}", folder / f"first{suffix}", config=folder / "config.json")
    expected = pipe(image.movedim(-1, 1), 2, generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert torch.equal(seen, expected.movedim(1, -1))


def test_a_model_that_is_gone(pack: HostedPack) -> None:
    validate = pack.classes["LoadUPSR"].validate_inputs
    # A repository is used instead; None is one that a link will bring.
    assert validate(model_name="gone", repo_id="org/name") is True
    assert validate(model_name="gone", repo_id=None) is True
    message = validate(model_name="gone")
    assert "'gone'" in message
    assert str(pack.models) in message
    assert str(pack.extra) in message
    with pytest.raises(ValueError, match="'gone' is not in"):
        pack.load("gone")


def test_half_a_pair(pack: HostedPack, golden: Golden, user_files: list[Path]) -> None:
    write_pair(golden, pack.models / "half", ".pth")
    (pack.models / "half" / "second.pth").unlink()
    (name,) = (name for name in pack.options() if name != BUNDLED)
    message = pack.classes["LoadUPSR"].validate_inputs(model_name=name)
    assert str(pack.models / "half" / "first.pth") in message
    assert "two files" in message


def damage_pth(folder: Path) -> None:
    path = folder / "second.pth"
    path.write_bytes(path.read_bytes()[:2000])


def drop_published_key(folder: Path) -> None:
    state = torch.load(folder / "second.pth", weights_only=True)["params_ema"]
    del state["input_blocks.0.0.bias"]
    torch.save(state, folder / "second.pth")


def same_role(folder: Path) -> None:
    shutil.copy(folder / "first.pth", folder / "second.pth")


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_pth, "second.pth: "),
        (drop_published_key, r"second.pth: .*missing key input_blocks\.0\.0\.bias"),
        (same_role, "both hold the SR network"),
        (no_config, r"second.pth: does not fit .*has shape"),
    ],
)
def test_broken_pairs_are_named_and_left_alone(
    pack: HostedPack, golden: Golden, user_files: list[Path], damage, message: str
) -> None:
    write_pair(golden, pack.models / "published", ".pth")
    damage(pack.models / "published")
    before = snapshot(*user_files)
    with pytest.raises(ValueError, match=message):
        pack.load("published")
    assert snapshot(*user_files) == before


def cut_weights(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def drop_key(folder: Path) -> None:
    path = folder / "sr_net" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    del state[max(state)]
    save_file(state, path)


def drop_weights(folder: Path) -> None:
    (folder / "sr_net" / "diffusion_pytorch_model.safetensors").unlink()


def other_class(folder: Path) -> None:
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("UPSRUNet", "UNet2DModel").replace('"upsr_core"', '"diffusers"', 1))


@pytest.mark.parametrize(
    ("damage", "part"), [(cut_weights, "unet"), (drop_key, "sr_net"), (drop_weights, "sr_net"), (other_class, "mine")]
)
def test_broken_folders_are_named_and_left_alone(pack: HostedPack, user_files: list[Path], damage, part: str) -> None:
    folder = pack.extra / "mine"
    shutil.copytree(ROOT / "upsr_core" / "checkpoints" / "upsr-tiny-x4", folder)
    damage(folder)
    before = snapshot(*user_files)
    with pytest.raises(ValueError, match=str(folder)) as caught:
        pack.load("mine")
    assert part in str(caught.value)
    assert snapshot(*user_files) == before


def test_loaded_again_only_when_the_files_have_changed(pack: HostedPack, user_files: list[Path]) -> None:
    shutil.copytree(ROOT / "upsr_core" / "checkpoints" / "upsr-tiny-x4", pack.models / "mine")
    load = pack.classes["LoadUPSR"]
    first = load.fingerprint_inputs(model_name="mine", dtype="auto")
    assert load.fingerprint_inputs(model_name="mine", dtype="auto") == first
    # Linked inputs are not known: ComfyUI compares what they are linked to.
    assert load.fingerprint_inputs(model_name=None, dtype=None, repo_id="") == ""
    assert load.fingerprint_inputs(model_name="mine", dtype=None, repo_id=None) is None
    (pack.models / "mine" / "unet" / "config.json").touch()
    assert load.fingerprint_inputs(model_name="mine", dtype="auto") != first


@pytest.mark.parametrize(
    ("choice", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_dtypes(pack: HostedPack, choice: str, dtype: torch.dtype) -> None:
    pipe = pack.load(dtype=choice).pipe
    assert pipe.unet.dtype == pipe.sr_net.dtype == dtype


def test_automatic_dtype_is_comfyuis(pack: HostedPack) -> None:
    assert pack.load(dtype="auto").pipe.unet.dtype == pack.mm.unet_dtype(device=pack.mm.get_torch_device())
    with pytest.raises(ValueError, match="dtype must be one of auto, fp32, fp16, bf16, not 'fp64'"):
        pack.load(dtype="fp64")
