"""Names of the networks' tensors in published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..models import ATDModel, UPSRUNet

# Our names to published ones; the first rule that matches the whole name counts.
_SWIN_RULES = [
    (r"(.*)\.proj_in\.(\w+)", r"\1.patch_embed.proj.\2"),
    (r"(.*)\.proj_out\.(\w+)", r"\1.patch_unembed.proj.\2"),
    (r"(.*)\.attn\.relative_position_bias", r"\1.attn.relative_position_bias_table"),
    (r"(.*)\.(qkv|proj)\.(\w+)", r"\1.attn.\2.\3"),
    (r"(.*)\.mlp\.0\.(\w+)", r"\1.mlp.fc1.\2"),
    (r"(.*)\.mlp\.2\.(\w+)", r"\1.mlp.fc2.\2"),
]
_RESNET_NAMES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "shortcut": "skip_connection",
}
_UNET_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "head.conv_in": "conv_before_upsample.0",
    "head.conv_hr": "conv_hr",
    "head.conv_out": "conv_last",
}
_ATD_LAYER_NAMES = {
    "qkv": "wqkv",
    "dictionary_attn.scale": "attn_atd.scale",
    "dictionary_attn.q": "attn_atd.wq",
    "dictionary_attn.k": "attn_atd.wk",
    "dictionary_attn.v": "attn_atd.wv",
    "category_attn": "attn_aca",
    "window_attn.relative_position_bias": "attn_win.relative_position_bias_table",
    "window_proj": "attn_win.proj",
    "ffn.dwconv": "convffn.dwconv.depthwise_conv.0",
    "ffn": "convffn",
    "dictionary_norm": "norm3",
    "dictionary_keep": "sigma",
}
_ATD_TOP = {
    "conv_in": "conv_first",
    "norm_in": "patch_embed.norm",
    "norm_out": "norm",
    "conv_body": "conv_after_body",
    "conv_out": "upsample.0",
}


def _renamed(names: Mapping[str, str], key: str) -> str | None:
    """``key`` with its longest prefix found in ``names`` replaced; None where there is none."""
    for prefix in sorted(names, key=len, reverse=True):
        if key == prefix or key.startswith(prefix + "."):
            return names[prefix] + key[len(prefix) :]
    return None


def _published_unet_name(key: str, unet: UPSRUNet) -> str:
    if (name := _renamed(_UNET_TOP, key)) is not None:
        return name
    if match := re.fullmatch(r"head\.upsample\.(\d+)\.(\w+)", key):
        return f"conv_up{int(match[1]) + 1}.{match[2]}"
    if match := re.fullmatch(r"down\.(\d+)\.(weight|bias)", key):
        return f"input_blocks.{int(match[1]) + 1}.0.op.{match[2]}"

    match = re.fullmatch(r"(down\.|up\.|mid_in|mid_out)(\d*)\.(resnet|attention|resample)\.(.*)", key)
    assert match is not None, key
    where, index, part, rest = match.groups()
    if where.startswith("mid"):
        position = {"mid_in": 0, "mid_out": 2}[where]
        block = f"middle_block.{position + (part == 'attention')}"
    else:
        number = int(index) + (where == "down.")
        blocks = "input_blocks" if where == "down." else "output_blocks"
        after_attention = part == "resample" and unet.get_submodule(where + index).attention is not None
        block = f"{blocks}.{number}.{(part != 'resnet') + after_attention}"

    if part == "resnet":
        return f"{block}.{_renamed(_RESNET_NAMES, rest)}"
    if part == "resample":
        return f"{block}.conv.{rest}"
    name = f"{block}.{rest}"
    for pattern, replacement in _SWIN_RULES:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


def _published_atd_name(key: str) -> str:
    if match := re.fullmatch(r"groups\.(\d+)\.layers\.(\d+)\.(.*)", key):
        group, layer, rest = match.groups()
        return f"layers.{group}.residual_group.layers.{layer}.{_renamed(_ATD_LAYER_NAMES, rest) or rest}"
    if match := re.fullmatch(r"groups\.(\d+)\.(.*)", key):
        names = {"dictionary": "residual_group.td", "norm": "patch_embed.norm"}
        return f"layers.{match[1]}.{_renamed(names, match[2]) or match[2]}"
    return _renamed(_ATD_TOP, key) or key


def published_names(model: UPSRUNet | ATDModel) -> dict[str, str]:
    """Published tensor name of every tensor of ``model.state_dict()``, by our name."""
    if isinstance(model, UPSRUNet):
        return {key: _published_unet_name(key, model) for key in model.state_dict()}
    return {key: _published_atd_name(key) for key in model.state_dict()}
