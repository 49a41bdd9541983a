"""`python -m norms`: the methods, one block each: what it is, paper, equation, options."""

from norms.build import METHODS, PROCEDURES, options


def show(name: str) -> None:
    """Four lines on a method."""
    known = ", ".join(f"{key}={value}" for key, value in options(name).items())
    print(f"{name}: {METHODS[name].line}")
    for what, text in (
        ("paper", METHODS[name].paper),
        ("equation", METHODS[name].equation),
        ("options", known),
    ):
        print(f"    {what + ':':9} {text or 'none'}")


print("Layers: norms.build(name, num_features, dim=1, **options), norms.convert(model, name, **options)\n")
for name in (name for name, method in METHODS.items() if method.make):
    show(name)
print("\nChanges of a model: norms.convert(model, name, **options)\n")
for name in (name for name, method in METHODS.items() if method.swap):
    show(name)
print("\nBeside them, from norms import ...\n")
for call, line, paper in PROCEDURES:
    print(f"{call}: {line}\n    paper:    {paper}")
