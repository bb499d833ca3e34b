"""What becomes of a finished model: its card, the Hub, and fine-tuning from it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
import yaml

from tests.tiny import ONE_LEVEL_UNET
from tests.trainer.runs import write_config, write_photos
from trainer.train import main
from upsr_core import UPSRPipeline, load_pipeline


def config_in(folder: Path, photos: Path, **changes: Any) -> Path:
    return write_config(folder / "config.yaml", photos, **changes)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "holiday", 3)


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was trained for two steps."""
    folder = tmp_path_factory.mktemp("first")
    assert main(["--config", str(config_in(folder, photos, data={"val_dir": str(photos)}))]) == 0
    return folder / "run" / "model"


def test_the_card_holds_figures_and_configuration_and_no_paths(model: Path, photos: Path) -> None:
    card = (model / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "image-to-image"
    assert front["library_name"] == "diffusers"
    for kind in ("Plain input", "Degraded input"):
        table = card.split(kind)[1].split("\n\n")[1].splitlines()
        assert [row.split("|")[1].strip() for row in table] == ["", "---", "bicubic", "g", "upsr"]
        psnr = float(table[2].split("|")[2])
        assert 5 < psnr < 60
    configuration = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert configuration["unet"] == {**ONE_LEVEL_UNET, "global_residual": True}
    assert configuration["unet_training"]["max_steps"] == 2
    assert "photos of `holiday`" in card
    assert str(photos) not in card
    assert f'load_pipeline("{model}")' in card
    assert load_pipeline(model).scale == 4


def test_without_held_out_images_the_card_counts_all_steps(photos: Path, tmp_path: Path) -> None:
    assert main(["--config", str(config_in(tmp_path, photos))]) == 0
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert ": 2 steps of the denoiser" in card
    assert "## Figures" not in card


def weights(pipe: UPSRPipeline) -> dict[str, torch.Tensor]:
    return {**pipe.sr_net.state_dict(prefix="sr_net."), **pipe.unet.state_dict(prefix="unet.")}


def test_fine_tuning_starts_from_the_model(model: Path, photos: Path, tmp_path: Path) -> None:
    """With a learning rate that changes nothing, the result is the model itself."""
    still = {"max_steps": 1, "batch_size": 2, "lr": 1e-30}
    config = config_in(tmp_path, photos, sr_net_training=still, unet_training=still)
    assert main(["--config", str(config), "--init-from", str(model)]) == 0
    before, after = weights(load_pipeline(model)), weights(load_pipeline(tmp_path / "run" / "model_last"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-12, rtol=0, msg=name)


def test_the_denoiser_alone_is_tuned_for_the_models_own_g(model: Path, photos: Path, tmp_path: Path) -> None:
    config = config_in(tmp_path, photos, stage="unet", seed=5)
    assert main(["--config", str(config), "--init-from", str(model)]) == 0
    before, after = load_pipeline(model), load_pipeline(tmp_path / "run" / "model")
    assert all(
        torch.equal(after.sr_net.state_dict()[name], value) for name, value in before.sr_net.state_dict().items()
    )
    assert any(
        not torch.equal(after.unet.state_dict()[name], value) for name, value in before.unet.state_dict().items()
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet": {"num_feat": 16}}, r"its unet has num_feat 8, the configuration 16"),
        ({"sr_net": {"depths": [2]}}, r"its sr_net has depths \[1\], the configuration \[2\]"),
        (
            {"scale": 2, "data": {"hr_size": 16, "val_size": 16, "preset": "bicubic"}},
            r"has (scale 4|.*), the configuration 2",
        ),
    ],
)
def test_another_architecture_is_one_line_before_the_first_step(
    model: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict, message: str
) -> None:
    config = config_in(tmp_path, photos, **changes)
    assert main(["--config", str(config), "--init-from", str(model)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train.py: error: ")]
    assert len(errors) == 1
    assert re.search(message, errors[0]), errors
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_source_that_is_not_there(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = config_in(tmp_path, photos)
    assert main(["--config", str(config), "--init-from", f"{tmp_path}/a.pth,{tmp_path}/b.pth"]) == 2
    assert "init_from: " in (error := capsys.readouterr().err)
    assert "a.pth: no such checkpoint file" in error


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face Hub as an upload of small files needs."""

    files: dict[str, bytes]
    created: list[dict[str, Any]]
    writable = True
    breaks_off = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self) -> None:
        if self.path == "/api/whoami-v2":
            if self.headers.get("Authorization") != "Bearer hf_right":
                return self._answer({"error": "Invalid user token."}, 401)
            return self._answer({"name": "org", "type": "user", "auth": {"accessToken": {"displayName": "t"}}})
        return self._answer({"error": f"not here: {self.path}"}, 404)

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/api/repos/create":
            self.created.append(json.loads(body))
            return self._answer({"url": f"{self.address}/org/tiny", "name": "org/tiny"})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            if not self.writable:
                return self._answer({"error": "Forbidden: pass `create_pr=1` to create a Pull Request"}, 403)
            names = [file["path"] for file in json.loads(body)["files"]]
            if self.breaks_off and len(names) > 1:
                # Is no OSError, and is not tried again for half a minute, as a lost connection is.
                self.send_response(200)
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"torn")
                return None
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._answer({"files": modes, "commitOid": "0" * 40})
        if "/commit/" in self.path:
            for line in body.splitlines():
                item = json.loads(line)
                if item["key"] == "file":
                    self.files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            return self._answer(
                {"commitUrl": f"{self.address}/org/tiny/commit/1", "commitOid": "1" * 40, "success": True}
            )
        return self._answer({"error": f"not here: {self.path}"}, 404)

    def log_message(self, *_: Any) -> None:
        """Not on the tests' output."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("OneHub", (Hub,), {"files": {}, "created": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield handler
    server.shutdown()


def test_the_model_is_uploaded_with_its_card_and_loads(
    hub: type[Hub], photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trainer")
    config = config_in(tmp_path, photos)
    assert main(["--config", str(config), "--push-to-hub", "org/tiny", "--private"]) == 0
    assert "/org/tiny/commit/1" in caplog.text
    (created,) = hub.created
    assert created["name"] == "tiny"
    assert created.get("visibility", created.get("private")) in ("private", True)
    for name, content in hub.files.items():
        path = tmp_path / "downloaded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert 'load_pipeline("org/tiny")' in (tmp_path / "downloaded" / "README.md").read_text()
    uploaded, local = (weights(load_pipeline(tmp_path / place)) for place in ("downloaded", "run/model"))
    assert all(torch.equal(uploaded[name], value) for name, value in local.items())


def test_a_wrong_token_is_found_before_the_training(
    hub: type[Hub], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["--config", str(config_in(tmp_path, photos)), "--push-to-hub", "org/tiny"]) == 2
    assert "--push-to-hub org/tiny" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert not hub.created


@pytest.mark.parametrize(("reachable", "reason"), [(True, "Forbidden"), (False, "refused")])
def test_no_right_to_write_and_no_connection_are_found_before_the_training(
    hub: type[Hub],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    reachable: bool,
    reason: str,
) -> None:
    """The repository is there, so that making it is no error."""
    hub.writable = False
    if not reachable:
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", "http://127.0.0.1:1")
    assert main(["--config", str(config_in(tmp_path, photos)), "--push-to-hub", "org/tiny"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train.py: error: ")]
    assert len(errors) == 1
    assert re.search(rf"--push-to-hub org/tiny: cannot be written to \(.*{reason}", errors[0]), errors
    assert not (tmp_path / "run").exists()


def test_an_upload_that_breaks_off_leaves_the_model_and_says_what_to_run(
    hub: type[Hub], photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.breaks_off = True
    assert main(["--config", str(config_in(tmp_path, photos)), "--push-to-hub", "org/tiny"]) == 1
    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert f"run: hf upload org/tiny {tmp_path / 'run' / 'model'}" in record.getMessage()
    assert not hub.files
    assert load_pipeline(tmp_path / "run" / "model").scale == 4


def test_half_a_model_is_not_uploaded(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = config_in(tmp_path, photos, stage="sr_net")
    assert main(["--config", str(config), "--push-to-hub", "org/tiny"]) == 2
    assert "stage sr_net makes no whole model" in capsys.readouterr().err


def test_the_card_survives_a_copy_into_another_folder(model: Path, tmp_path: Path) -> None:
    """As for ComfyUI: the folder is all there is to a model."""
    shutil.copytree(model, tmp_path / "upsr" / "mine")
    assert load_pipeline(tmp_path / "upsr" / "mine").unet.config.num_feat == ONE_LEVEL_UNET["num_feat"]
