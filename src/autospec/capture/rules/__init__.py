"""Layer rules, one file per layer family; importing the package registers them all."""

from autospec.capture.rules import attention, cells, convolution, embedding, linear, recurrent

__all__ = ["attention", "cells", "convolution", "embedding", "linear", "recurrent"]
