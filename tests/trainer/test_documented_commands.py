"""The commands of docs/training.md, run as they are printed, on images and networks small enough for a test.

The launcher's part is read by accelerate's own parser, the rest is run in this process: test_train.py and
test_distributed.py start the launcher itself.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from accelerate.state import AcceleratorState

from tests.tiny import ONE_LEVEL_UNET
from tests.trainer.runs import environment, log_of, write_photos
from trainer.train import main
from upsr_core import load_pipeline

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"^(accelerate launch|python trainer).*$", re.MULTILINE)
COMMANDS = [match[0] for match in COMMAND.finditer((ROOT / "docs" / "training.md").read_text(encoding="utf-8"))]
# What a test of its own runs, since it needs more than this machine has.
ELSEWHERE = {
    "--use_fsdp": "test_distributed.py, with a check of accelerate's switched off",
    "DENOISER.pth": "test_published_models.py, in its process",
    "--push-to-hub": "test_published_models.py, against a stand-in for the Hub",
}
SMALL = [
    *(f"unet.{key}={value}" for key, value in ONE_LEVEL_UNET.items()),
    "sr_net={}",
    "conv_sr_net={channels: 8, num_blocks: 1}",
    "data.hr_size=32",
    "data.val_size=32",
]
SHORT = ["validate_every=0", "trackers=[]"]
SHORT += [f"{stage}_training.{key}" for stage in ("sr_net", "unet") for key in ("max_steps=1", "batch_size=1")]


def run(command: str, folder: Path, *overrides: str) -> str:
    """What a printed command logs; its placeholders name images in ``folder``, where its results go, too."""
    for name in ("PHOTOS", "HELD_OUT"):
        command = command.replace(f"={name}", f"={folder}/photos")
    command = command.replace("runs/", f"{folder}/runs/").replace("sheet.png", f"{folder}/sheet.png")
    words = shlex.split(command)
    if words[0] == "accelerate":
        launched = launch_command_parser().parse_args(words[2:])
        assert launched.training_script == "trainer/train.py"
        with pytest.MonkeyPatch.context() as patch, log_of("trainer") as log:
            patch.chdir(ROOT)
            # Its precision is that of the process.
            AcceleratorState._reset_state()
            assert main([*launched.training_script_args, *overrides]) == 0
            AcceleratorState._reset_state()
        return "\n".join(log)
    started = [sys.executable, *words[1:], *overrides]
    done = subprocess.run(started, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def the_one(*parts: str) -> str:
    """The printed command with these words in it."""
    found = [command for command in COMMANDS if all(part in command for part in parts)]
    assert len(found) == 1, (parts, found)
    return found[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first of the training commands has run."""
    folder = tmp_path_factory.mktemp("documented")
    write_photos(folder / "photos", 3)
    log = run(the_one("tiny.yaml", "runs/mine"), folder, *SMALL, *SHORT)
    assert "unet 1: finished" in log
    return folder


def test_from_photos_to_a_model(trained: Path) -> None:
    assert load_pipeline(trained / "runs" / "mine" / "model").scale == 4


def test_going_on(trained: Path) -> None:
    log = run(the_one("--resume latest"), trained, "unet_training.max_steps=2")
    assert "unet 1: resumed from" in log
    assert "unet 2: finished" in log


def test_a_look_at_the_degradation(trained: Path) -> None:
    run(the_one("preview_degradation"), trained, *SMALL)
    assert (trained / "sheet.png").is_file()


def test_several_processes(trained: Path) -> None:
    overrides = [
        *SMALL,
        *SHORT,
        f"output_dir={trained}/runs/several",
        "stage=sr_net",
        "data.preset=mild",
        "data.num_workers=0",
    ]
    log = run(the_one("--multi_gpu"), trained, *overrides, "sr_net_training.perceptual_weight=0")
    assert "sr_net 1: finished" in log


def test_fine_tuning_the_bundled_model(trained: Path) -> None:
    write_photos(trained / "larger", 2, side=160)
    command = the_one("tiny_finetune.yaml").replace("PHOTOS", "LARGER").replace("HELD_OUT", "LARGER")
    log = run(
        command.replace("LARGER", str(trained / "larger")),
        trained,
        *SHORT,
        "data.val_size=128",
        f"output_dir={trained}/tuned",
    )
    assert "unet 1: finished" in log
    assert "another scheduler" not in log


def test_every_printed_command_is_run_somewhere() -> None:
    here = ("runs/mine", "--multi_gpu", "tiny_finetune.yaml")
    for command in COMMANDS:
        places = [part for part in (*ELSEWHERE, "preview_degradation", *here) if part in command]
        assert places, command
