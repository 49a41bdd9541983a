"""`python -m norms [name ...]`: the methods, one block each: what it is, class, paper, equation, options."""

import sys
from difflib import get_close_matches

from norms.build import CHOICES, METHODS, PROCEDURES, classes, options


def kinds(name: str) -> str:
    """The classes of a method; three that differ in their dimension as BatchRenorm1d/2d/3d."""
    found = classes(name)
    stems = {kind.removesuffix(f"{dim}d") for dim, kind in enumerate(found, start=1)}
    return f"{found[0]}/2d/3d" if len(found) == 3 and len(stems) == 1 else ", ".join(found)


def option(name: str, key: str, value: object) -> str:
    """Key and default, with the choices of a word."""
    chosen = key in CHOICES and (name, key) != ("dyt", "alpha")  # whose alpha is a number
    return f"{key}={value}" + (f" ({', '.join(CHOICES[key])})" if chosen else "")


def show(name: str) -> None:
    """Five lines on a method."""
    known = ", ".join(option(name, key, value) for key, value in options(name).items())
    print(f"{name}: {METHODS[name].line}")
    for what, text in (
        ("class", kinds(name)),
        ("paper", METHODS[name].paper),
        ("equation", METHODS[name].equation),
        ("options", known),
    ):
        print(f"    {what + ':':9} {text or 'none'}")


for wanted in sys.argv[1:]:
    if wanted not in METHODS:
        near = get_close_matches(wanted, METHODS, n=1)
        hint = f"did you mean {near[0]}?" if near else "python -m norms lists them"
        print(f"no method {wanted!r}: {hint}", file=sys.stderr)
        sys.exit(2)
    show(wanted)
if sys.argv[1:]:
    sys.exit()
print("Layers: norms.build(name, num_features, dim=1, **options), norms.convert(model, name, **options)")
print("By program: norms.names(), norms.options(name)\n")
for name in (name for name, method in METHODS.items() if method.make):
    show(name)
print("\nChanges of a model: norms.convert(model, name, **options)\n")
for name in (name for name, method in METHODS.items() if method.swap):
    show(name)
print("\nBeside them, from norms import ...\n")
for call, line, paper in PROCEDURES:
    print(f"{call}: {line}\n    paper:    {paper}")
