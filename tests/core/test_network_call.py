from __future__ import annotations

import torch

from tests.tiny import build_tiny
from upsr_core.network_call import call_network


def test_half_precision_leaves_the_timestep_whole() -> None:
    unet, seen = build_tiny().unet.to(torch.bfloat16), []
    unet.time_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    call_network(unet, torch.zeros(1, 48, 16, 16), torch.tensor(999), torch.zeros(1, 96, 16, 16))
    assert seen[0].tolist() == [999]
