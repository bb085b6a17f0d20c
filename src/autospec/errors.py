"""The exception that a user's mistake ends in, and what is told apart of it."""


class AutoSpecError(ValueError):
    """A mistake whose message names the key, layer or file at fault and what would be right."""


class DamagedFile(AutoSpecError):
    """A file that can no longer be read, whoever wrote it."""


class AutoSpecWarning(UserWarning):
    """Something recorded with a gap (NaN, a layer without a gradient); said once per recorder."""
