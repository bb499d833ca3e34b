from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer.runs import write_config, write_photos
from trainer.config import load_config
from trainer.output.checkpointing import StageProgress, read_progress
from trainer.train import plan, train
from trainer.typed_yaml import ConfigError


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    return write_config(tmp_path / "c.yaml", write_photos(tmp_path / "photos", 3))


def test_a_folder_with_a_run_in_it_is_not_overwritten(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file)
    with pytest.raises(ConfigError, match=r"holds no checkpoint; leave out --resume to start anew$"):
        plan(config, "latest")
    write_checkpoint(tmp_path / "run/checkpoints/sr_net/step-00000005", StageProgress("sr_net", {}, 5))
    with pytest.raises(ConfigError, match=r"holds a run already .*step-00000005\); add --resume latest"):
        plan(config, None)
    with pytest.raises(ConfigError, match=r"is no checkpoint of this trainer"):
        plan(config, str(tmp_path))


def test_resuming_takes_up_the_stage_that_was_left(config_file: Path, tmp_path: Path) -> None:
    config, folder = load_config(config_file), tmp_path / "run" / "checkpoints"
    first = write_checkpoint(folder / "sr_net" / "step-00000005", StageProgress("sr_net", {}, 5))
    # Half-written ones don't count.
    write_checkpoint(folder / "sr_net" / "step-00000009.partial", StageProgress("sr_net", {}, 9))
    assert plan(config, "latest") == [("sr_net", first), ("unet", None)]
    done = write_checkpoint(folder / "sr_net" / "step-00000006", StageProgress("sr_net", {}, 6, finished=True))
    assert plan(config, "latest") == [("unet", None)]
    last = write_checkpoint(folder / "unet" / "step-00000002", StageProgress("unet", {}, 2))
    assert plan(config, "latest") == [("unet", last)]
    assert plan(config, str(last)) == [("unet", last)]
    only_g = load_config(config_file, ["stage=sr_net"])
    assert plan(only_g, "latest") == [("sr_net", done)]
    with pytest.raises(ConfigError, match=r"is a checkpoint of stage unet, but the configuration says sr_net$"):
        plan(only_g, str(last))


def test_a_checkpoint_of_another_architecture_is_refused(config_file: Path, tmp_path: Path) -> None:
    assert train(load_config(config_file, ["stage=sr_net"])) == 0
    checkpoint = tmp_path / "run/checkpoints/sr_net/step-00000002"
    assert read_progress(checkpoint).architecture["embed_dim"] == 16
    with pytest.raises(ConfigError, match=r"its sr_net has num_tokens 8, the configuration 4; use"):
        train(load_config(config_file, ["stage=sr_net", "sr_net.num_tokens=4"]), "latest")


def write_checkpoint(folder: Path, progress: StageProgress) -> Path:
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps(vars(progress)))
    return folder
