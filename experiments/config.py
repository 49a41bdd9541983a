"""The typed part of a config, and a run's identity.

A table's `Run` is a dataclass made of the parts below. What it names determines a result, is checked for its
types here, and is hashed into the run's id; everything else in the config (paths, device, tracking) is not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONF = Path(__file__).resolve().parent.parent / "conf"


class BadInput(ValueError):
    """Something the user typed cannot be run: one line that says what, where, and what to do."""


# ---- the parts of a config that determine a result; every table's `Run` is made of them -------------------


@dataclass
class Data:
    name: str
    val_fraction: float
    limit_train: int | None
    limit_eval: int | None
    options: dict[str, Any]
    share: float = 1.0  # of the training part that is used: its first rows


@dataclass
class Model:
    name: str
    hidden: list[int]
    widths: list[int]
    dropout: list[float]


@dataclass
class Norm:
    name: str
    options: dict[str, Any]


@dataclass
class Optimizer:
    name: str
    lr: float
    l2: float
    options: dict[str, Any]

    def __post_init__(self) -> None:
        """Of all that an optimizer may refuse it says so itself, but for this."""
        betas = self.options.get("betas", (0.9, 0.999))
        numbers = isinstance(betas, list | tuple) and [b for b in betas if isinstance(b, int | float)]
        if not numbers or len(numbers) != 2 or len(betas) != 2:
            raise BadInput(f"optimizer.options.betas={betas}: expected two numbers, as in [0.9,0.999]")


def typed(schema: type, cfg: DictConfig) -> Any:
    """The `schema` (a dataclass of dataclasses) filled from the composed config; keys it does not name are
    left out.

    Raises BadInput with the full key where a value is missing or has the wrong type, such as
    optimizer.lr=fast.
    """
    try:
        return _fill(schema, OmegaConf.to_container(cfg, resolve=True), "")
    except OmegaConfBaseException as e:
        raise BadInput(str(e).splitlines()[0]) from e


@cache
def is_group(key: str) -> bool:
    return (CONF / key).is_dir()


def _fill(schema: type, values: Any, where: str) -> Any:
    filled = {}
    for f in dataclasses.fields(schema):
        key = where + f.name
        if f.name in values and values[f.name] != "???":
            filled[f.name] = _coerce(_hints(schema)[f.name], values[f.name], key)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            group = key.split(".")[0]
            hint = (
                f"choose {group}=... (see python -m experiments --help)"
                if group not in values and is_group(group)
                else f"give {key}=..."
            )
            raise BadInput(f"{key} is not set: {hint}")
    return schema(**filled)


def coerce(schema: type, name: str, value: Any, key: str) -> Any:
    """A value as the type of a field; BadInput, which names `key`, where it is of another."""
    return _coerce(_hints(schema)[name], value, key)


@cache
def _hints(schema: type) -> dict[str, Any]:
    return typing.get_type_hints(schema)


def _coerce(hint: Any, value: Any, key: str) -> Any:
    """`value` as the type `hint`: whole numbers pass as floats, nothing else changes its kind."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _fill(hint, value if isinstance(value, dict) else {}, f"{key}.")
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _coerce(parts[0], value, key)
    if origin is list and isinstance(value, list):
        return [_coerce(parts[0], v, key) for v in value]
    if origin is dict and isinstance(value, dict):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (str, bool) and isinstance(value, hint):
        return value
    wanted = {
        float: "a number",
        int: "a whole number",
        str: "a word",
        bool: "true or false",
        list: "a list [a,b]",
        dict: "a dictionary",
    }[origin or hint]
    raise BadInput(f"{key}={value}: expected {wanted}")


# ---- identity ---------------------------------------------------------------------------------------------


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, whole floats as integers, so that alpha=1 is alpha=1.0."""

    def plain(v: Any) -> Any:
        if isinstance(v, dict):
            return {str(k): plain(x) for k, x in v.items()}
        if isinstance(v, list | tuple):
            return [plain(x) for x in v]
        if isinstance(v, float) and v.is_integer():
            return int(v)
        return v

    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def identity(run: Any) -> dict[str, Any]:
    """The dictionary that is hashed. A field with a declared default is left out while it has it: keys added
    later, always with a default that means 'as before', change no id.
    """
    out = {}
    for f in dataclasses.fields(run):
        value = getattr(run, f.name)
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if default is not dataclasses.MISSING and value == default:
            continue
        out[f.name] = identity(value) if dataclasses.is_dataclass(value) else value
    return out


def defaults(schema: type) -> dict[str, Any]:
    """The declared defaults of a run's fields, {"data": {"share": 1.0}}: what a config without the key means.
    Old records lack keys that came later.
    """
    found: dict[str, Any] = {}
    for f in dataclasses.fields(schema):
        hint = _hints(schema)[f.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            if inner := defaults(hint):
                found[f.name] = inner
        elif f.default is not dataclasses.MISSING:
            found[f.name] = f.default
        elif f.default_factory is not dataclasses.MISSING:
            found[f.name] = f.default_factory()
    return found


def run_id(run: Any, fingerprint: str) -> str:
    return digest({"run": identity(run), "data": fingerprint})


def plain(run: Any) -> dict[str, Any]:
    return dataclasses.asdict(run)
