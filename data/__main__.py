"""`python -m data`: which data sets there are, and where. `python -m data prepare NAME... [key=value...]`."""

import json
import sys
from typing import Any

from data import store
from data.errors import DataSetMissing
from data.sets import SETS, locate, prepare, ready

HELP = """Data sets of this suite.

  python -m data [root=DIR] [cache=DIR]         lists them: prepared, found, or what to do
  python -m data prepare NAME... [key=value...] prepares them for quick loading

Keys: root=DIR     where files are looked for (default $BN_DATA_ROOT, else the user's cache folder)
      cache=DIR    where prepared files go (default $BN_DATA_CACHE, else the user's cache folder)
      download=true fetch what is missing, from mirrors, with checksums
      and the options of the set, such as path=DIR size=28 channels=3 of folder."""


def main(arguments: list[str]) -> int:
    if any(a in ("-h", "--help", "help") for a in arguments):
        print(HELP)
        return 0
    words = [a for a in arguments if "=" not in a]
    values = {key: _value(text) for key, _, text in (a.partition("=") for a in arguments if "=" in a)}
    try:
        if not words:
            _list(values)
        elif words[0] == "prepare" and len(words) > 1:
            for name in words[1:]:
                print(f"{name}: {prepare(name, **values)}", flush=True)
        else:
            raise ValueError("expected `python -m data` or `python -m data prepare NAME...`; see --help")
    except (ValueError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    return 0


def _value(text: str) -> Any:
    """true, false, null and numbers as in JSON, everything else as it stands."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _list(values: dict[str, Any]) -> None:
    for key in values:
        if key not in ("root", "cache"):
            raise ValueError(f"the list takes root=DIR and cache=DIR, not {key}=")
    root, cache = values.get("root"), values.get("cache")
    print(f"data root: {store.root_folder(root)}\nprepared files: {store.cache_folder(cache)}\n")
    for name, entry in SETS.items():
        print(f"{name:10}{entry.line}\n{'':10}{_where(name, root, cache)}")


def _where(name: str, root: Any, cache: Any) -> str:
    if name == "folder":
        return "python -m data prepare folder path=DIR"
    try:
        place = locate(name, root, cache, {})
    except DataSetMissing as e:
        return str(e)
    variant = f" ({place.variant})" if place.variant != name else ""
    if ready(place):
        return f"prepared{variant}: {place.prepared}"
    assert place.files is not None  # without them, locate has seen a prepared file
    return f"found{variant}: {place.files[0].parent}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
