"""Two processes train what one does, and resume as exactly."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from packaging.version import Version
from safetensors.torch import load_file

from tests.trainer.runs import (
    SEVERAL_RUNS,
    TRAIN,
    assert_same_state,
    assert_same_tensors,
    launch_two,
    log_of,
    logged_losses,
    together,
    write_denoiser_config,
)
from trainer.config import load_config
from trainer.output.checkpointing import list_checkpoints, read_progress
from trainer.sharding import check_launch
from trainer.train import main
from trainer.typed_yaml import ConfigError

EXPORTED = Path("model_last", "unet", "diffusion_pytorch_model.safetensors")
# 4 images a step, as one process does with batch 4.
HALF = ["unet_training.batch_size=1", "unet_training.gradient_accumulation=2"]
FSDP_OPTIONS = (
    "--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP",
    "--fsdp_transformer_layer_cls_to_wrap", "ResBlock,SwinLayer", "--fsdp_cpu_ram_efficient_loading", "false",
)  # fmt: skip


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_denoiser_config(tmp_path_factory.mktemp("distributed"))


@pytest.fixture(scope="module")
def alone(config_file: Path) -> tuple[list[float], Path]:
    """The losses of one process, and its folder."""
    run = config_file.parent / "alone"
    with log_of("trainer") as lines:
        assert main(["--config", str(config_file), f"output_dir={run}"]) == 0
    return logged_losses("\n".join(lines)), run


def assert_same_training(log: str, run: Path, alone: tuple[list[float], Path]) -> None:
    """The same losses, and averaged weights that differ by rounding only."""
    losses, other = alone
    assert len(losses) == 20
    # The second process tells nothing.
    assert logged_losses(log) == pytest.approx(losses, rel=2e-3)
    a, b = load_file(run / EXPORTED), load_file(other / EXPORTED)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-3, rtol=1e-2)


def test_two_processes_train_as_one_and_resume_exactly(config_file: Path, alone: tuple[list[float], Path]) -> None:
    folder = config_file.parent
    common = ["--config", str(config_file), *HALF]
    pool = [*common, "data.pool_size=4", "log_every=100"]
    log = together(
        [*common, f"output_dir={folder / 'two'}"],
        [*pool, f"output_dir={folder / 'whole'}"],
        [*pool, f"output_dir={folder / 'halves'}", "unet_training.max_steps=10"],
        [*pool, f"output_dir={folder / 'halves'}", "--resume", "latest"],
    )
    assert "7 images, 2 processes, steps 0 to 20" in log
    assert_same_training(log, folder / "two", alone)

    assert "2 processes, steps 10 to 20" in log
    last = Path("checkpoints", "unet", "step-00000020")
    assert {path.name for path in (folder / "whole" / last).glob("*_1.*")} == {"pool_1.pt", "random_states_1.pkl"}
    assert_same_state(folder / "whole" / last, folder / "halves" / last)
    assert_same_tensors(folder / "whole" / EXPORTED, folder / "halves" / EXPORTED)


@pytest.mark.skipif(Version(accelerate.__version__) < Version("1.6"), reason="has no FSDP 2")
def test_two_processes_that_share_out_the_weights_train_as_one(
    config_file: Path, alone: tuple[list[float], Path]
) -> None:
    run = config_file.parent / "sharded"
    arguments = ["--config", str(config_file), *HALF, "channels_last=false", f"output_dir={run}"]
    script = SEVERAL_RUNS.with_name("fsdp_on_cpu.py")
    first, second = [*arguments, "unet_training.max_steps=10"], [*arguments, "--resume", "latest"]
    log = together(first, second, script=script, options=FSDP_OPTIONS)
    shards = run / "checkpoints" / "unet" / "step-00000020" / "pytorch_model_fsdp_0"
    assert len(list(shards.glob("*.distcp"))) == 2
    assert_same_training(log, run, alone)


def test_two_machines_train_as_one(config_file: Path, alone: tuple[list[float], Path]) -> None:
    run = config_file.parent / "machines"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    arguments = ["--config", str(config_file), *HALF, f"output_dir={run}"]
    place = ["--multi_gpu", "--num_machines", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", port]
    machines = [launch_two([*place, "--machine_rank", rank], TRAIN, *arguments) for rank in "01"]
    logs = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], logs
    assert_same_training(logs[0], run, alone)
    assert logged_losses(logs[1]) == []


def test_ctrl_c_stops_two_processes_at_one_step(config_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["--config", str(config_file), *HALF, f"output_dir={run}"]
    process = launch_two([], TRAIN, *arguments, "unet_training.max_steps=100000")
    log = ""
    assert process.stdout is not None
    for line in process.stdout:
        log += line
        if len(logged_losses(line)) and "unet 3:" in line:
            # As a terminal does: to the launcher and all that it has started.
            os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    (checkpoint,) = list_checkpoints(run / "checkpoints" / "unet")
    step = read_progress(checkpoint).step
    assert f"unet {step}: interrupted; go on with --resume {checkpoint}" in log
    assert len(list(checkpoint.glob("random_states_*"))) == 2


def launched_as(kind: DistributedType, processes: int, version: int = 2) -> Any:
    state = SimpleNamespace(fsdp_plugin=SimpleNamespace(fsdp_version=version))
    device = torch.device("cpu")
    return SimpleNamespace(distributed_type=kind, num_processes=processes, device=device, state=state)


def test_ways_of_launching_that_would_go_wrong_are_refused(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(config_file)
    check_launch(Accelerator(cpu=True), config)
    with pytest.raises(ConfigError, match=r"DEEPSPEED is not supported; use --multi_gpu, or --use_fsdp$"):
        check_launch(launched_as(DistributedType.DEEPSPEED, 1), config)
    with pytest.raises(ConfigError, match=r"FSDP version 1 is not supported; add --fsdp_version 2$"):
        check_launch(launched_as(DistributedType.FSDP, 1, version=1), config)
    with pytest.raises(ConfigError, match=r"^channels_last: FSDP cannot .* set channels_last=false$"):
        check_launch(launched_as(DistributedType.FSDP, 1), config)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"--use_fsdp does nothing for NO, with 1 processes on cpu; leave it out"):
        check_launch(launched_as(DistributedType.NO, 1), config)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"2 processes were started, but each trains alone.*ACCELERATE_USE_CPU=true"):
        check_launch(launched_as(DistributedType.NO, 1), config)
