from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from upsr_core import load_pipeline
from upsr_core.cli.completion import SHELLS
from upsr_core.cli.main import main
from upsr_core.loading import BUNDLED_MODEL, model_sha256


def test_doctor_knows_of_threads(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    try:
        assert main(["doctor", "--json", "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(before)
    assert json.loads(capsys.readouterr().out)["chosen"]["threads"] == 1


def test_doctor_says_what_is_here_and_what_would_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cpu", "--dtype", "bfloat16"]) == 0
    printed = capsys.readouterr().out
    assert main(["doctor", "--device", "cpu", "--dtype", "bfloat16", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert facts["devices"]["cpu"].endswith(" GiB free")
    assert (facts["chosen"]["device"], facts["chosen"]["dtype"]) == ("cpu", "bfloat16")
    assert "in tiles of at most that" in facts["chosen"]["tile"]
    assert facts["models"]["bundled"] == str(BUNDLED_MODEL)
    for text in (facts["versions"]["pillow"], facts["chosen"]["tile"], str(BUNDLED_MODEL)):
        assert text in printed


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert stop.value.code == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("upscale", "doctor", "skip-existing", "color-fix", "wavelet"))


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit):
        main(["--print-completion", "bash"])
    (tmp_path / "upsr.sh").write_text(capsys.readouterr().out)
    ask = (
        "source upsr.sh; COMP_WORDS=(upsr upscale --skip); COMP_CWORD=2; "
        '"$(complete -p upsr | grep -o "_shtab[^ ]*")"; '
        'echo "${COMPREPLY[@]}"'
    )
    run = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "--skip-existing"


def test_completion_without_its_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 2
    assert capsys.readouterr().err == "upsr: error: --print-completion needs shtab; pip install shtab\n"


def test_info_describes_the_model(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = load_pipeline(tiny_folder)
    assert main(["info", str(tiny_folder)]) == 0
    printed = capsys.readouterr().out
    assert f"{pipe.unet.num_parameters():,}" in printed
    assert main(["info", str(tiny_folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model"] == str(tiny_folder)
    assert facts["sha256"] == model_sha256(pipe)
    assert facts["denoiser_parameters"] == pipe.unet.num_parameters()
    assert (facts["scale"], facts["steps"], facts["most_steps"]) == (4, 5, 5)
