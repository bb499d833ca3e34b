"""Where images come from: folders, tar shards, Hugging Face datasets and folders of LR-HR pairs."""
