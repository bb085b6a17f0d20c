"""The folder of a run: its lock, its checkpoints, where its numbers come from."""
