"""LoadUPSR: a model from the list, or from the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from comfy_api.latest import io

from .hosted_model import NETWORK_DTYPES, UPSRModel, UPSRModelType, network_dtype
from .library import PACK
from .model_folders import FOLDER_NAME, FOREIGN_MARK, LONELY_MARK, ModelFiles, list_models


class LoadUPSR(io.ComfyNode):
    """Loads a model and hands it to ComfyUI's memory management."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs and outputs; the list is made anew whenever ComfyUI asks."""
        models = list(list_models())
        return io.Schema(
            node_id="LoadUPSR",
            display_name="Load UPSR",
            category="image/upscaling",
            description="Loads a UPSR super-resolution model: the bundled one, one from models/upsr, or from the Hub.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=models,
                    default=models[0],
                    display_name="model",
                    tooltip="The bundled model, and those in models/upsr: folders written by save_pretrained or the "
                    "trainer, and pairs of published checkpoints (.pth or .safetensors), converted as they load.",
                ),
                io.Combo.Input(
                    "dtype",
                    options=list(NETWORK_DTYPES),
                    default="auto",
                    tooltip="Type that the networks compute in. auto: ComfyUI's choice for this device, the "
                    "SR network in fp32. A tile that half precision turns to NaN is computed again in fp32.",
                ),
                io.String.Input(
                    "repo_id",
                    default="",
                    optional=True,
                    display_name="Hub repository",
                    tooltip="A Hugging Face repository such as org/name, to be downloaded at the first run and used "
                    "instead of the model chosen above. Leave it empty to use that one.",
                ),
            ],
            outputs=[
                UPSRModelType.Output("upsr_model", display_name="upsr_model", tooltip="For the other UPSR nodes.")
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None, repo_id: str | None = "") -> bool | str:
        """Refuse a model that is not there before the graph runs; a linked input is None, its value not known yet."""
        if model_name is None or repo_id is None or repo_id.strip():
            return True
        try:
            _find(model_name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model_name: str | None, dtype: str | None, repo_id: str | None = "") -> Hashable:
        """Loaded again only when the files have changed; a linked input is None, and ComfyUI looks after it itself."""
        if repo_id is None:
            return None
        if model_name is None or repo_id.strip():
            return repo_id.strip()
        return _find(model_name).fingerprint()

    @classmethod
    def execute(cls, model_name: str, dtype: str, repo_id: str = "") -> io.NodeOutput:
        """Load it on the CPU; it moves when a node needs it."""
        if dtype not in NETWORK_DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(NETWORK_DTYPES)}, not {dtype!r}")
        repo_id = repo_id.strip()
        try:
            from upsr_core import load_pipeline
            from upsr_core.published.conversion import convert_pair
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"the Python package {error.name!r} is missing; run: pip install -r {PACK / 'requirements.txt'}"
            ) from error
        torch_dtype = network_dtype(dtype)
        files = None if repo_id else _find(model_name)
        # ComfyUI unloads outside inference mode, where moving a weight made inside would spoil it.
        with torch.inference_mode(False):
            if files is None or not files.checkpoints:
                pipe = load_pipeline(repo_id if files is None else files.folder)
            else:
                pipe = convert_pair(files.checkpoints[0], files.checkpoints[1], config=files.config)
            # Categories of the paper's SR network jump with the rounding of half precision, and the result with them.
            for network in (pipe.unet,) if dtype == "auto" else (pipe.unet, pipe.sr_net):
                network.to(torch_dtype)
        return io.NodeOutput(UPSRModel.host(pipe))


def _find(name: str) -> ModelFiles:
    """The files of a model in the list.

    Raises:
        ValueError: it is not there, or half of it.
    """
    import folder_paths

    folders = ", ".join(folder_paths.get_folder_paths(FOLDER_NAME))
    files = list_models().get(name)
    if files is None:
        raise ValueError(
            f"model {name!r} is not in {folders} any more; choose another, or press R to read the list anew"
        )
    if name.endswith(FOREIGN_MARK):
        raise ValueError(
            f"{files.checkpoints[0]}: neither a denoiser nor an SR network of UPSR, or damaged; choose another model"
        )
    if name.endswith(LONELY_MARK):
        raise ValueError(
            f"{files.checkpoints[0]}: a published model is two files, the denoiser and the SR network; put the other "
            f"one beside it in {files.folder}"
        )
    return files
