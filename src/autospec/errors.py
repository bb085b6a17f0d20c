"""The one exception that a user's mistake ends in."""


class AutoSpecError(ValueError):
    """A mistake whose message names the key, layer or file at fault and what would be right."""


class AutoSpecWarning(UserWarning):
    """Something recorded with a gap (NaN, a layer without a gradient); said once per recorder."""
