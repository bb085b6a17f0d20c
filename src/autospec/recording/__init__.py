"""The recorder: what a user's training loop talks to."""
