"""Options in messages: the functions' parameters, as one types them on the command line."""

from __future__ import annotations

import re

# With an underscore no word of a sentence; not where it is part of a path or quoted.
_ANYWHERE = (
    "max_error|max_drop|benchmark_seconds|cost_seconds|time_limit|max_memory|allow_synthetic"
    "|external_data"
)
# Words of their own, so only where a message begins with one and says what it must be.
_AT_THE_START = "minimize|metric|keep|target|threads|tolerate|fuel|seconds|replicates|seed"
_NAMES = re.compile(
    rf"^(?:{_AT_THE_START})(?= (?:is|must be|needs|names|says) )"
    r"|(?<= needs )metric(?= beside)"
    rf"|(?<![\w/.'\"-])(?:{_ANYWHERE})(?![\w/.'\"-])"
)


def as_typed(message: str) -> str:
    """Write parameters in a message as options: ``max_error`` becomes ``--max-error``."""
    return _NAMES.sub(lambda found: "--" + found[0].replace("_", "-"), message)
