"""Runs that end before their time and go on as if nothing had happened."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.runs import (
    TRAIN,
    assert_same_state,
    assert_same_tensors,
    environment,
    write_config,
    write_denoiser_config,
    write_photos,
)
from trainer.config import load_config
from trainer.loop import StageTrainer
from trainer.output.atomic_folders import remove_folder, remove_leftover_folders, replace_folder, restore_replaced
from trainer.output.checkpointing import list_checkpoints, read_progress
from trainer.train import main, plan
from trainer.typed_yaml import ConfigError

LAST = Path("checkpoints", "unet", "step-00000020")
EXPORTED = Path("model_last", "unet", "diffusion_pytorch_model.safetensors")
# Of 7 photos, so that 10 steps of 2 x 3 end in the middle of a pass.
COMMON = ["unet_training.batch_size=3", "unet_training.gradient_accumulation=2", "data.pool_size=8", "log_every=20"]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_denoiser_config(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def whole(config_file: Path) -> Path:
    """A run that was left alone."""
    run = config_file.parent / "whole"
    assert main(["--config", str(config_file), *COMMON, f"output_dir={run}"]) == 0
    return run


def test_twenty_steps_are_ten_and_a_resume_and_ten(config_file: Path, whole: Path, tmp_path: Path) -> None:
    halves = ["--config", str(config_file), *COMMON, f"output_dir={tmp_path / 'run'}"]
    assert main([*halves, "unet_training.max_steps=10"]) == 0
    # More workers must not change anything either.
    assert main([*halves, "data.num_workers=1", "--resume", "latest"]) == 0
    assert_same_state(whole / LAST, tmp_path / "run" / LAST)
    assert_same_tensors(whole / EXPORTED, tmp_path / "run" / EXPORTED)


def test_g_is_resumed_as_exactly(config_file: Path, tmp_path: Path) -> None:
    common = ["--config", str(config_file), "stage=sr_net", "sr_net_training.batch_size=2", "log_every=100"]
    whole, halves = (f"output_dir={tmp_path / name}" for name in ("whole", "halves"))
    assert main([*common, whole, "sr_net_training.max_steps=4"]) == 0
    assert main([*common, halves, "sr_net_training.max_steps=2"]) == 0
    assert main([*common, halves, "sr_net_training.max_steps=4", "--resume", "latest"]) == 0
    last = Path("checkpoints", "sr_net", "step-00000004")
    assert_same_state(tmp_path / "whole" / last, tmp_path / "halves" / last)


def test_killed_while_it_saves_it_goes_on_from_the_last_whole_checkpoint(
    config_file: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ["--config", str(config_file), *COMMON, f"output_dir={run}", "checkpoints_total_limit=1"]
    command = [sys.executable, str(TRAIN), *arguments, "checkpoint_every=1"]
    kill_while_saving(command, run / "checkpoints" / "unet", first_step=4)
    (partial,) = (run / "checkpoints" / "unet").glob("*.partial")
    (checkpoint,) = list_checkpoints(run / "checkpoints" / "unet")
    assert read_progress(checkpoint).step == int(partial.name[5:13]) - 1
    assert main([*arguments, "checkpoint_every=0", "--resume", "latest"]) == 0
    assert_same_state(whole / LAST, run / LAST)
    assert [path.name for path in (run / "checkpoints" / "unet").iterdir()] == [LAST.name]


def kill_while_saving(command: list[str], folder: Path, first_step: int) -> None:
    """SIGKILL to all processes of the command at a moment when a checkpoint is half-written."""
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while process.poll() is None:
            if any(int(path.name[5:13]) >= first_step for path in folder.glob("*.partial")):
                os.killpg(process.pid, signal.SIGSTOP)
                # Stopped, it cannot finish any more: now look whether it has.
                if any((path / "model.safetensors").exists() for path in folder.glob("*.partial")):
                    os.killpg(process.pid, signal.SIGKILL)
                    break
                os.killpg(process.pid, signal.SIGCONT)
            time.sleep(0.001)
        else:
            pytest.fail("the run ended before it could be killed")


@pytest.mark.parametrize("killed_after", ["rename to old", "rename to new"])
def test_a_folder_is_there_wherever_its_replacement_was_killed(tmp_path: Path, killed_after: str) -> None:
    folder, new = tmp_path / "model", tmp_path / "model.partial"
    for path in (folder, new):
        path.mkdir()
        (path / "weights").write_text(path.name)
    folder.rename(tmp_path / "model.old")
    if killed_after == "rename to new":
        new.rename(folder)
    restore_replaced(tmp_path)
    expected = "model" if killed_after == "rename to old" else "model.partial"
    assert (folder / "weights").read_text() == expected
    remove_leftover_folders(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]

    new.mkdir()
    replace_folder(new, folder)
    assert list(tmp_path.iterdir()) == [folder]
    assert not list(folder.iterdir())
    remove_folder(folder)
    assert not list(tmp_path.iterdir())
    # Half-deleted: nothing of it comes back.
    folder.with_name("model.old").mkdir()
    restore_replaced(tmp_path)
    assert not folder.exists()


def test_a_run_that_was_cut_off_while_it_replaced_a_folder_finds_it_again(config_file: Path, tmp_path: Path) -> None:
    run, g = tmp_path / "run", config_file.parent / "g"
    (run / "model.partial").mkdir(parents=True)
    (run / "model.old").mkdir()
    for file in g.iterdir():
        (run / "model.old" / file.name).write_bytes(file.read_bytes())
    arguments = ["--config", str(config_file), "sr_net_from=null", "log_every=100", f"output_dir={run}"]
    assert main([*arguments, "unet_training.max_steps=1"]) == 0

    # So does one whose only checkpoint was being replaced, as at the end of a run.
    (checkpoint,) = list_checkpoints(run / "checkpoints" / "unet")
    checkpoint.rename(checkpoint.with_name(checkpoint.name + ".old"))
    checkpoint.with_name(checkpoint.name + ".partial").mkdir()
    assert main([*arguments, "unet_training.max_steps=2", "--resume", "latest"]) == 0
    assert [read_progress(path).step for path in list_checkpoints(checkpoint.parent)] == [1, 2]


def test_another_order_of_images_is_not_silent(
    config_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["--config", str(config_file), f"output_dir={tmp_path / 'run'}", "log_every=100"]
    assert main([*arguments, "unet_training.max_steps=1"]) == 0
    photo = config_file.parent / "photos" / "more.png"
    photo.write_bytes((config_file.parent / "photos" / "0.png").read_bytes())
    try:
        with caplog.at_level(logging.WARNING, "trainer"):
            assert main([*arguments, "unet_training.max_steps=2", "--resume", "latest"]) == 0
    finally:
        photo.unlink()
    (warning,) = [record.getMessage() for record in caplog.records if "continuation" in record.getMessage()]
    assert warning == ("unet 1: not an exact continuation, as images come in another order (images 7 then, 8 now)")
    saved = read_progress(list_checkpoints(tmp_path / "run" / "checkpoints" / "unet")[-1])
    assert saved.order == {"images": 8, "images per step": 4, "seed": 0}


def test_a_run_that_starts_from_anothers_checkpoint_leaves_that_as_it_is(
    config_file: Path, whole: Path, tmp_path: Path
) -> None:
    source = tmp_path / "whole" / "checkpoints" / "unet"
    shutil.copytree(whole / LAST, source / LAST.name)
    later = shutil.copytree(whole / LAST, source / "step-00000030")
    arguments = ["--config", str(config_file), *COMMON, f"output_dir={tmp_path / 'run'}"]
    assert main([*arguments, "unet_training.max_steps=21", "--resume", str(source / LAST.name)]) == 0
    assert later.is_dir()


@pytest.mark.parametrize("stage", ["sr_net", "unet"])
def test_an_interrupt_after_a_stages_last_step_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    config = ["--config", str(write_config(tmp_path / "c.yaml", photos)), f"data.val_dir={photos}"]
    validate = StageTrainer._validate

    def interrupted(trainer: StageTrainer) -> None:
        validate(trainer)
        if trainer.stage.name == stage:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO, "trainer"):
        patch.setattr(StageTrainer, "_validate", interrupted)
        assert main(config) == 1
    assert caplog.records[-1].getMessage().endswith("interrupted; go on with --resume latest")
    folder = tmp_path / "run" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == (["sr_net"] if stage == "sr_net" else ["sr_net", "unet"])
    assert main([*config, "--resume", "latest"]) == 0
    assert (tmp_path / "run" / "model" / "README.md").is_file()


def test_a_resume_with_another_accumulation_begins_a_whole_step(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--config", str(config_file), f"output_dir={tmp_path}", "log_every=100"]
    assert main([*arguments, "unet_training.max_steps=3"]) == 0
    seen, step = [], StageTrainer.step

    def watched(trainer: StageTrainer, *rest: Any) -> None:
        seen.append(trainer.accelerator.step)
        step(trainer, *rest)

    monkeypatch.setattr(StageTrainer, "step", watched)
    changes = ["unet_training.max_steps=5", "unet_training.gradient_accumulation=2", "unet_training.batch_size=2"]
    assert main([*arguments, *changes, "--resume", "latest"]) == 0
    assert seen == [0, 2]


def test_a_best_score_of_another_measure_does_not_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    config = ["--config", str(write_config(tmp_path / "c.yaml", photos)), f"data.val_dir={photos}", "stage=sr_net"]
    assert main(config) == 0
    last = tmp_path / "run" / "checkpoints" / "sr_net"
    assert read_progress(list_checkpoints(last)[-1]).measure["metric"] == "loss"
    with caplog.at_level(logging.WARNING, "trainer"):
        changes = ["sr_net_training.max_steps=3", "sr_net_training.best_metric=psnr"]
        assert main([*config, *changes, "--resume", "latest"]) == 0
    assert "the best score so far counts no more" in caplog.text
    progress = read_progress(list_checkpoints(last)[-1])
    assert (progress.best_step, progress.measure["metric"]) == (3, "psnr")


def test_an_older_checkpoint_is_refused_while_later_ones_would_be_mistaken_for_its_own(
    config_file: Path, tmp_path: Path
) -> None:
    config = load_config(config_file, [f"output_dir={tmp_path}", "stage=both", "sr_net_from=null"])
    folders = []
    for stage, step in (("sr_net", 5), ("sr_net", 6), ("unet", 2)):
        folder = tmp_path / "checkpoints" / stage / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(f'{{"stage": "{stage}", "architecture": {{}}, "step": {step}}}')
        folders.append(folder)
    with pytest.raises(ConfigError, match=r"step-00000005: .*step-00000006 is later; move or delete it"):
        plan(config, str(folders[0]))
    with pytest.raises(ConfigError, match=r"step-00000006: .*step-00000002 is later; move or delete it"):
        plan(config, str(folders[1]))
    assert plan(config, str(folders[2])) == [("unet", folders[2])]
