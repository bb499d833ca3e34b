"""The summary of a stage before its first step."""

from __future__ import annotations

from torch import nn

from trainer.config import TrainConfig

# Of a trained weight in float32: itself, its gradient, AdamW's two averages, and the moving average.
TRAINED_BYTES = 5 * 4


def summary(
    config: TrainConfig, stage: str, network: nn.Module, frozen: nn.Module | None, images: int, processes: int
) -> list[str]:
    """Networks, images, batch, epochs, degradation, loss and memory, a line each.

    Args:
        config: the whole run.
        stage: of the network that is trained.
        network: it; of a network that is sharded among processes, the whole sizes count.
        frozen: g, where the denoiser is trained for it.
        images: to train on.
        processes: that train together.
    """
    training, data = config.training(stage), config.data
    batch = training.batch_size * training.gradient_accumulation * processes
    parameters = sum(parameter.numel() for parameter in network.parameters())
    beside = f", beside the frozen SR network's {sum(p.numel() for p in frozen.parameters()):,}" if frozen else ""
    term = {"sr_net": "L1", "unet": "squared error"}[stage]
    epochs = training.max_steps * batch / images
    return [
        f"{parameters:,} parameters are trained{beside}",
        f"batch: {training.batch_size} x {training.gradient_accumulation} micro-steps x {processes} processes = "
        f"{batch} images a step; {training.max_steps} steps are {epochs:.1f} epochs of {images}",
        f"degradation: {data.degradation_name}; crops of {data.hr_size} HR pixels",
        f"loss: {term} + {training.added_terms}",
        f"memory: {parameters * TRAINED_BYTES / 2**20:.0f} MiB for weights, gradients and averages; activations, which "
        "grow with batch and crops, come on top",
    ]
