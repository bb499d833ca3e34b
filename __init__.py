"""The door for ComfyUI, which imports this folder by its path: binds the library and hands over the nodes."""

import sys

# Test runners import this file as well, and there is nothing in it for them.
if __package__ and "folder_paths" in sys.modules:
    from .nodes import comfy_entrypoint
    from .nodes.library import bind_library

    WEB_DIRECTORY = "./nodes/web"

    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

    bind_library()
