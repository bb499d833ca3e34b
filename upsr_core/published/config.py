"""Configurations in the published code's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models import ATDModel, UPSRUNet
from ..scheduling_unw import UNWScheduler


def _pop_fixed(section: dict[str, Any], where: str, fixed: Mapping[str, Any]) -> None:
    for key, value in fixed.items():
        if section.pop(key, value) != value:
            raise ValueError(f"configuration {where}.{key}: only {value!r} is supported")


def _section(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"configuration {where}: must hold keys and values, not {content!r}")
    return dict(content)


def _translate(section: Mapping[str, Any], where: str, names: Mapping[str, str], fixed: Mapping[str, Any]) -> dict:
    section = _section(section, where)
    _pop_fixed(section, where, fixed)
    unknown = [key for key in section if key not in names]
    if unknown:
        raise ValueError(f"configuration {where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(names))}")
    return {names[key]: value for key, value in section.items() if names[key]}


# Published configuration key to our argument; "" for keys that change nothing at inference.
_UNET_CONFIG = {key: key for key in (
    "image_size", "in_channels", "out_channels", "model_channels", "channel_mult", "num_res_blocks", "swin_depth",
    "attention_resolutions", "swin_embed_dim", "window_size", "num_head_channels", "mlp_ratio", "num_feat", "dropout",
)} | {"lq_size": "", "use_fp16": "", "use_checkpoint": "", "cond_mask": ""}  # fmt: skip
_UNET_FIXED = {
    "conv_resample": True, "dims": 2, "use_scale_shift_norm": True, "resblock_updown": False, "cond_lq": True,
}  # fmt: skip
_ATD_CONFIG = {
    "upscale": "scale",
    "in_chans": "in_channels",
    "num_tokens": "num_tokens",
    "reducted_dim": "reduced_dim",
    "img_size": "",
    "use_checkpoint": "",
} | {key: key for key in (
    "embed_dim", "depths", "num_heads", "window_size", "category_size", "convffn_kernel_size", "img_range", "mlp_ratio",
)}  # fmt: skip
_ATD_FIXED = {"upsampler": "pixelshuffledirect", "resi_connection": "1conv"}
_DIFFUSION_CONFIG = {
    "steps": "num_train_timesteps", "kappa": "kappa", "min_noise_level": "min_noise_level", "etas_end": "etas_end",
    "schedule_kwargs": "schedule_kwargs", "weighted_mse": "", "sf": "", "scale_factor": "", "normalize_input": "",
    "timestep_respacing": "",
}  # fmt: skip
_DIFFUSION_FIXED = {"schedule_name": "exponential", "predict_type": "xstart", "latent_flag": False}


def build_published(config: Mapping[str, Any] | None = None) -> tuple[UPSRUNet, ATDModel, UNWScheduler]:
    """Networks, weights still random, and scheduler for a configuration in the published code's terms.

    Args:
        config: dict with ``denoiser``, ``sr_net`` and ``diffusion``; None for the published model.

    Raises:
        ValueError: a key is unknown or asks for something that is not supported.
    """
    config = config or {"denoiser": {}, "sr_net": {}, "diffusion": {}}
    missing = {"denoiser", "sr_net", "diffusion"} - config.keys()
    if missing:
        raise ValueError(f"configuration: section {sorted(missing)[0]!r} is missing")
    unet_args = _translate(config["denoiser"], "denoiser", _UNET_CONFIG, _UNET_FIXED)
    atd_args = _translate(config["sr_net"], "sr_net", _ATD_CONFIG, _ATD_FIXED)
    diffusion = _section(config["diffusion"], "diffusion")
    diffusion.pop("target", None)
    noise_args = {ours: diffusion.pop(key) for key, ours in (("un", "psi_max"), ("min_noise", "weight_min"))
                  if key in diffusion}  # fmt: skip
    schedule = _translate(diffusion.pop("params", {}), "diffusion.params", _DIFFUSION_CONFIG, _DIFFUSION_FIXED)
    if diffusion:
        raise ValueError(f"configuration diffusion: unknown key {next(iter(diffusion))!r}")
    schedule |= _section(schedule.pop("schedule_kwargs", {}), "diffusion.params.schedule_kwargs")
    scale, out_channels = atd_args.get("scale", 4), unet_args.get("out_channels", 3)
    if type(scale) is not int or type(out_channels) is not int:
        raise ValueError(f"configuration: scale {scale!r} and out_channels {out_channels!r} must be whole numbers")
    folded = out_channels * scale**2
    if unet_args.pop("in_channels", folded) != folded:
        raise ValueError(f"configuration denoiser.in_channels: only out_channels * upscale^2 = {folded} is supported")
    # fmt: off
    return (
        UPSRUNet(**unet_args, scale=scale, shift_mask="published"),
        ATDModel(**atd_args),
        UNWScheduler(**schedule, **noise_args),
    )
    # fmt: on
