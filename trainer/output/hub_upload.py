"""Uploading a trained model to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import LocalTokenNotFoundError, validate_repo_id

from trainer.typed_yaml import ConfigError
from upsr_core.messages import one_line

# A connection that fails is an OSError with huggingface_hub 0.x, which uses requests, but no longer since 1.0.
UNREACHABLE = (HTTPError, OSError)


def prepare_repository(repo_id: str, private: bool) -> None:
    """Make sure before the training that its result can be uploaded; makes the repository if there is none.

    Raises:
        ConfigError: not logged in, no such organisation, no right to write there, or no connection.
    """
    try:
        validate_repo_id(repo_id)
        HfApi().whoami()
        HfApi().create_repo(repo_id, private=private, exist_ok=True)
        # An upload's first request, which sends no file: a repository that can only be read passes all of the above.
        HfApi().preupload_lfs_files(repo_id, [CommitOperationAdd("README.md", b"UPSR")])
    except LocalTokenNotFoundError as error:
        raise ConfigError(f"--push-to-hub {repo_id}: not logged in; run: hf auth login, or set HF_TOKEN") from error
    except (HFValidationError, *UNREACHABLE) as error:
        raise ConfigError(f"--push-to-hub {repo_id}: cannot be written to ({one_line(error)})") from error


def upload(folder: Path, repo_id: str) -> str:
    """Upload a model's folder, its README.md included, in one commit; returns the commit's address.

    Raises:
        ConnectionError: the upload failed; the folder is as it was, and can be uploaded by hand.
    """
    try:
        commit = HfApi().upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload a UPSR model")
    # The transfer of a large file raises RuntimeError.
    except (RuntimeError, *UNREACHABLE) as error:
        raise ConnectionError(one_line(error)) from error
    return str(commit.commit_url)
