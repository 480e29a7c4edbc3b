"""The main job in one command: `make demo`. Not part of the wheel."""
