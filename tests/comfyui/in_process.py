"""ComfyUI's own modules in the tests' process, with the pack loaded the way its main program does."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
NODE_IDS = ("EstimateUncertainty", "LoadUPSR", "UPSRExamplePhoto", "UPSRSample")
BUNDLED = "upsr-tiny-x4 (bundled)"
SAMPLE_DEFAULTS = {
    "seed": 0,
    "steps": 0,
    "stochasticity": 0.0,
    "noise_strength": 1.0,
    "tile_size": 0,
    "tile_overlap": 16,
    "output_scale": 4.0,
    "color_fix": "auto",
}


class HostedPack:
    """The nodes as ComfyUI's executor runs them.

    Attributes:
        models: ComfyUI's own folder for the models.
        extra: the folder that an extra_model_paths.yaml names.
        mm: ComfyUI's model management.
    """

    def __init__(self, checkout: Path, base: Path):
        # First: the repository's folder of that name must not be found in the place of ComfyUI's module `nodes`.
        sys.path.insert(0, str(checkout))
        import comfy.cli_args

        comfy.cli_args.args.cpu = True
        comfy.cli_args.args.base_directory = str(base)
        # Before `nodes`, as in its main program: libraries may bring a `utils` of their own.
        import comfy.model_management
        import utils.extra_config

        import nodes

        assert Path(nodes.__file__).parent == checkout
        self.mm: Any = comfy.model_management
        self.models, self.extra = base / "models" / "upsr", base / "elsewhere" / "upsr"
        self.extra.mkdir(parents=True)
        yaml = base / "extra_model_paths.yaml"
        yaml.write_text(f"mine:\n  base_path: {self.extra.parent}\n  upsr: upsr\n")
        utils.extra_config.load_extra_path_config(str(yaml))
        link = base / "custom_nodes" / "ComfyUI-UPSR"
        link.parent.mkdir()
        link.symlink_to(ROOT)
        assert asyncio.run(nodes.load_custom_node(str(link), module_parent="custom_nodes"))
        self.classes: dict[str, Any] = {name: nodes.NODE_CLASS_MAPPINGS[name] for name in NODE_IDS}

    @torch.inference_mode()
    def run(self, node_id: str, **inputs: Any) -> tuple:
        """A node's outputs."""
        clone = self.classes[node_id].PREPARE_CLASS_CLONE({})
        return clone.EXECUTE_NORMALIZED(**inputs).args

    def load(self, model_name: str = BUNDLED, dtype: str = "fp32") -> Any:
        """What Load UPSR gives."""
        return self.run("LoadUPSR", model_name=model_name, dtype=dtype)[0]

    def sample(self, model: Any, image: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """What UPSR Sample gives, with its defaults where nothing else is said."""
        return self.run("UPSRSample", upsr_model=model, image=image, **{**SAMPLE_DEFAULTS, **inputs})[0]

    def estimate(self, model: Any, image: torch.Tensor, psi_max: float = 0.1, weight_min: float = 0.4) -> tuple:
        """What Estimate Uncertainty gives."""
        return self.run("EstimateUncertainty", upsr_model=model, image=image, psi_max=psi_max, weight_min=weight_min)

    def options(self) -> list[str]:
        """The models that a user can choose from."""
        return self.classes["LoadUPSR"].INPUT_TYPES()["required"]["model_name"][1]["options"]


def photo(height: int, width: int, batch: int = 1, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """An IMAGE (batch,height,width,channels): few large shapes, a little fine detail."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, channels, 6, 7, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    image += 0.05 * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 1).movedim(1, -1).contiguous()
