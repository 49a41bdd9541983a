"""`python -m data`: which data sets there are, and where. `python -m data prepare NAME... [key=value...]`."""

import json
import sys
from typing import Any

from data import games, keel, store, uci
from data.errors import DataSetMissing
from data.sets import SETS, locate, prepare, ready

HELP = """Data sets of this suite.

  python -m data [root=DIR] [cache=DIR]         lists them: prepared, found, or what to do
  python -m data prepare NAME... [key=value...] prepares them for quick loading
  python -m data sets keel|uci [root=DIR]       the sets of a collection: rows, columns, classes, folds

Keys: root=DIR     where files are looked for (default $BN_DATA_ROOT, else the user's cache folder)
      cache=DIR    where prepared files go (default $BN_DATA_CACHE, else the user's cache folder)
      download=true fetch what is missing, from mirrors, with checksums
      and the options of the set, such as path=DIR size=28 channels=3 of folder, set=iris fold=0 of keel."""


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
        elif words[0] == "sets" and len(words) == 2 and words[1] in ("keel", "uci"):
            _sets(words[1], values)
        else:
            raise ValueError(
                "expected `python -m data`, `python -m data prepare NAME...` or "
                "`python -m data sets keel|uci`; see --help"
            )
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
        print(f"{name:16}{entry.line}\n{'':16}{_where(name, root, cache)}")
    for name, line in games.SETS.items():
        print(f"{name:16}{line}\n{'':16}{_installed(name)}")


def _installed(name: str) -> str:
    try:
        return f"installed: {games.PACKAGE[name]} {games.version(name)}"
    except DataSetMissing as e:
        return str(e)


def _sets(collection: str, values: dict[str, Any]) -> None:
    facts = keel.index() if collection == "keel" else uci.index(values.get("root"))
    if not facts:
        raise DataSetMissing(f"no set of {collection} was found; `python -m data` says what to put where")
    print(f"{'set':32}{'rows':>8}{'columns':>9}{'classes':>9}{'folds':>7}")
    for f in facts:
        print(f"{f.name:32}{f.n:8}{f.d:9}{f.classes:9}{f.folds:7}")


def _where(name: str, root: Any, cache: Any) -> str:
    example = SETS[name].example
    how = f"python -m data prepare {name} {example}"
    if name in ("folder", "table", "domains"):
        return how
    try:
        options = dict(part.split("=") for part in example.split())
        place = locate(name, root, cache, {key: _value(text) for key, text in options.items()})
    except DataSetMissing as e:
        return str(e)
    if example and place.files:
        return f"found: {place.files[0].parent}; {how}"
    variant = f" ({place.variant})" if place.variant != name else ""
    if ready(place):
        return f"prepared{variant}: {place.prepared}"
    assert place.files is not None  # without them, locate has seen a prepared file
    return f"found{variant}: {place.files[0].parent}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
