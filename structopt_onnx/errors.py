"""Every error that a user can meet.

::

    StructoptError                 exit code
    ├── ValidationFailed           1   outputs differ by more than allowed
    ├── UsageError                 2   an argument is wrong
    ├── ModelError                 3   a model can't be read, checked or run
    │   └── DataError              3   calibration data does not fit the model
    └── InternalError              4   a bug in a pass or in this package
"""

from __future__ import annotations

from typing import ClassVar


class StructoptError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line for the user."""

    exit_code: ClassVar[int] = 4


class ValidationFailed(StructoptError):  # noqa: N818 - named for what the user reads
    """The outputs of two models differ by more than was allowed."""

    exit_code = 1


class UsageError(StructoptError):
    """An argument, option or pipeline text is wrong."""

    exit_code = 2


class ModelError(StructoptError):
    """A model can't be read, is not valid, or can't be run; names the file, node and remedy."""

    exit_code = 3


class DataError(ModelError):
    """Calibration or test data does not fit the model's inputs; lists what was expected."""


class InternalError(StructoptError):
    """A bug: a pass raised or proposed an edit that is not well-formed; names the pass."""

    exit_code = 4
