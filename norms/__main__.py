"""`python -m norms`: the methods, one block each: what it is, the paper, the options with their defaults."""

from norms.build import METHODS, options

for name, method in METHODS.items():
    print(f"{name:12} {method.line}")
    print(f"{'':12} paper: {method.paper}")
    print(f"{'':12} options: {', '.join(f'{key}={value}' for key, value in options(name).items()) or 'none'}")
