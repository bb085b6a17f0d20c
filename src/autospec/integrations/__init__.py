"""Recording where somebody else's loop trains: Lightning, the Hugging Face Trainer, Accelerate (docs/callbacks.md)."""
