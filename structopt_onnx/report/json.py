"""Records as JSON: stable, sorted, without NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""What JSON can say."""


def to_json(record: object) -> str:
    """Write a record, such as a `Report`, as JSON.

    Equal records give equal text: keys are sorted, sets are ordered, only measured times differ
    between two runs of the same work. Numbers that JSON does not have (NaN, infinities) become
    null. Beside its fields an object has its properties, so verdicts are there to be read
    (``passed``, ``failures``, ``error``).

    Parameters
    ----------
    record
        A dataclass, or a mapping with string keys.

    Returns
    -------
    str
        One JSON object, indented, with a newline at the end. For a `Report` its keys are

        ``schema``
            Version of this form: an integer, raised when a key changes its meaning or goes.
        ``version``
            Version of the package that made it.
        ``source``, ``output``
            Names of the model read and the file written; ``output`` is null when none was.
        ``options``, ``pipeline``
            Options as given, by name; all steps as pipeline text.
        ``recipe``
            The options and the path of the calibration data as TOML, for ``--recipe``.
        ``before``, ``after``
            ``file_bytes``, ``cost`` (parameters, bytes, macs, nodes, predicted seconds), and nodes
            by name as ``operators``.
        ``applied``
            List, in order, of ``number``, ``step``, ``title``, ``node``, cost ``before`` and
            ``after`` of the region, ``replaced`` value names, and for lossy rewrites ``site``
            and ``option``.
        ``refused``
            List of ``step`` and ``refusal`` (``code``, ``detail``, ``node``).
        ``samples``
            ``origin``, ``synthetic``, ``count``, the parts ``fit``, ``probe``, ``final``,
            ``by_source``, and the ``shapes`` of one.
        ``plan``
            Null without a budget, else ``budget`` (of error, null where none was set),
            ``objective``, ``sites`` (with all options seen, the one chosen and why, and the
            ``spectrum`` as pairs of a direction's number and its share of the energy),
            ``predicted`` (by the probe part, times ``rescaled``) and its standard error ``spread``,
            ``summed`` (single sites in quadrature), ``probe_error``, ``final_error``, ``rounds``,
            ``probed_on``, ``undone``, ``final_evaluations``, ``nearest_miss``, ``unmet``,
            ``refit`` (null, or ``factors``, ``kept``, error on the probe part ``before`` and
            ``after``, and the same of each of its ``rounds`` with its ``weights`` and the way
            ``kept``), ``recovery`` (null, or ``weights``, ``steps``, ``stopped``, ``kept``, and
            errors ``before``, ``after``, ``final_before``, ``final_after``), ``curve`` (null, or
            plans ``offered`` for several errors and those ``tried``, each with ``cost``,
            ``predicted`` and ``measured`` error), and for budgets of these kinds ``metric``
            (``name``, ``max_drop``, ``drop``, values with and without the plan as ``final``,
            ``final_original``, ``probe``, ``probe_original``, ``decisions``) and ``keep``
            (``objective``, ``share``, ``reached``, and ``sites``: the share left of the lossy
            sites' cost).
        ``estimate``, ``estimate_basis``
            What budgets might buy.
        ``validation``
            Null, or ``passed``, ``failures``, ``interface``, ``noise`` and the two checks
            ``exact`` and ``shipped`` with metrics by output.
        ``comparison``
            Null, or the paired benchmark: ``verdict``, ``reason``, ``ratio``, ``low``, ``high``,
            ``control_ratio``, timings ``a`` and ``b`` in milliseconds and bytes, the ``shapes``
            of the inputs, ``needed_seconds`` where the time did not suffice, and
            ``replicate_times``: every time behind it, in milliseconds.
        ``coverage_before``, ``coverage_after``
            Null for a target that has every operator, else ``nodes``, ``supported``, ``share``,
            ``partitions``, ``unsupported`` operators, ``free_dimensions`` and ``basis``, which is
            ``predicted``: nothing ran on the target.
        ``rolled_back``, ``warnings``, ``caveats``, ``notes``
            Lists of lines; the caveats are the warnings and what the samples and the target leave
            open.
        ``seconds``
            Wall time by stage.
        ``machine``
            Where it ran.
    """
    body = plain(record)
    if not isinstance(body, dict):
        raise TypeError(f"a record is a dataclass or a mapping, not {type(record).__name__}")
    if "schema" not in body:
        from structopt_onnx.report.record import SCHEMA  # noqa: PLC0415 - the record imports onnx

        body["schema"] = SCHEMA
    return json.dumps(body, indent=2, sort_keys=True, allow_nan=False) + "\n"


def plain(value: object) -> Plain:
    """Turn a value into what JSON can say.

    NumPy scalars and arrays become numbers and lists, paths their text, objects without a plain
    form the name of their type (never a memory address, which would differ between runs).
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Real):
        return _number(value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((plain(item) for item in value), key=json.dumps)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _object(value)


def _number(value: Real) -> Plain:
    if isinstance(value, Integral):
        return int(value)
    number = float(value)
    return number + 0.0 if math.isfinite(number) else None  # + 0.0 turns -0.0 into 0.0


def _object(value: object) -> Plain:
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)] + _properties(type(value))
        return {name: plain(getattr(value, name)) for name in names}
    if hasattr(value, "tolist"):  # NumPy's arrays, and its scalars that are no Python numbers
        return plain(value.tolist())
    named: Any = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _key(key: object) -> str:
    found = plain(key)
    return found if isinstance(found, str) else json.dumps(found)


def _properties(cls: type) -> list[str]:
    return [
        name
        for name in dir(cls)
        if not name.startswith("_") and isinstance(getattr(cls, name), property)
    ]
