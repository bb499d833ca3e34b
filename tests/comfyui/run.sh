#!/usr/bin/env bash
# The nodes in a real ComfyUI: in its process, in its server, and in its frontend.
#
#     tests/comfyui/run.sh CHECKOUT [arguments for pytest]
#
# Makes an environment for it and removes that at the end. COMFYUI_PYTHON=/path/to/python uses one that is there, with
# the packages named below in it.
set -euo pipefail

if [ $# -eq 0 ] || [ ! -f "$1/comfyui_version.py" ]; then
    echo "usage: $0 CHECKOUT [arguments for pytest]; CHECKOUT is a clone of ComfyUI" >&2
    exit 2
fi
COMFYUI_PATH=$(cd "$1" && pwd)
export COMFYUI_PATH
shift
cd "$(dirname "$0")/../.."

python=${COMFYUI_PYTHON:-}
if [ -z "$python" ]; then
    environment=$(mktemp -d)
    trap 'rm -rf "$environment"' EXIT
    python3 -m venv "$environment"
    python=$environment/bin/python
    "$python" -m pip install --quiet --upgrade pip
    # torchvision and torchaudio work with the one torch that they were built for.
    "$python" -m pip install --quiet torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0 \
        -r "$COMFYUI_PATH/requirements.txt" -r requirements.txt \
        opencv-python-headless pytest playwright websocket-client
    if [ -z "${CHROMIUM:-}" ] && ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null; then
        "$python" -m playwright install chromium
        CHROMIUM=$("$python" -c 'from playwright.sync_api import sync_playwright
with sync_playwright() as playwright: print(playwright.chromium.executable_path)')
        export CHROMIUM
    fi
fi
"$python" -m pytest tests/comfyui "$@"
