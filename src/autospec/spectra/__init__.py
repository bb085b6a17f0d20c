"""Linear algebra on activations, adjoints and gradients; torch only, no model and no file in sight."""
