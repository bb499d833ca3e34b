"""Uploading a trained model to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import LocalTokenNotFoundError, validate_repo_id

from trainer.typed_yaml import ConfigError


def prepare_repository(repo_id: str, private: bool) -> None:
    """Make sure before the training that its result can be uploaded; makes the repository if there is none.

    Raises:
        ConfigError: not logged in, no such organisation, no right to write there, or no connection.
    """
    try:
        validate_repo_id(repo_id)
        HfApi().whoami()
        HfApi().create_repo(repo_id, private=private, exist_ok=True)
    except LocalTokenNotFoundError as error:
        raise ConfigError(f"--push-to-hub {repo_id}: not logged in; run: hf auth login, or set HF_TOKEN") from error
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--push-to-hub {repo_id}: can not be written to ({reason})") from error


def upload(folder: Path, repo_id: str) -> str:
    """Upload a model's folder, its README.md included, in one commit; returns the commit's address.

    Raises:
        OSError: the connection failed; the folder is as it was, and can be uploaded by hand.
    """
    commit = HfApi().upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a UPSR model")
    return str(commit.commit_url)
