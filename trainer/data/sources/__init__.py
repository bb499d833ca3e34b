"""Sources of images: folders, tar shards, Hugging Face datasets and folders of LR-HR pairs."""
