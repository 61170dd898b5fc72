"""From a fresh clone to a running program: `python3 -m demos` and `python3 -m tests` begin here.

Standard library only. This file stays parseable by old Pythons, so that they get to say what they lack;
the files it imports need not.
"""

import sys

FLOOR = (3, 10)

OLD = """\
asynctrace needs Python {floor} or newer; this is {version} ({executable}).
Run it with a newer one, for example: python3.12 -m {module}"""


def ensure(extra: str, module: str, argv: "list[str]") -> "list[str]":
    """Returns the arguments that are left when this interpreter has what `extra` needs.

    Otherwise makes or mends an environment in the repository and goes on inside it, running `module` with
    the same arguments. `--python VERSION` chooses another interpreter and is taken out of them.
    """
    if sys.version_info < FLOOR:
        floor, version = (".".join(map(str, numbers[:2])) for numbers in (FLOOR, sys.version_info))
        sys.exit(OLD.format(floor=floor, version=version, executable=sys.executable, module=module))
    from demos.bootstrap.enter import enter

    return enter(extra, module, argv)
