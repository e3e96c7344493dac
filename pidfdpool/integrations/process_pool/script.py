"""`python -m pidfdpool.multiprocessing SCRIPT [ARGUMENT ...]`: runs a program whose pools are ours."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType

from pidfdpool.integrations.process_pool.installing import install

_USAGE = "usage: python -m pidfdpool.multiprocessing SCRIPT [ARGUMENT ...]"


def main(arguments: list[str]) -> int:
    """Run the script as `python SCRIPT` would, after `install`. Return the exit code."""
    if not arguments or arguments[0].startswith("-"):
        print(_USAGE, file=sys.stdout if arguments[:1] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    path = arguments[0]
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        print(f"python -m pidfdpool.multiprocessing: cannot open {path!r}: {error.strerror}", file=sys.stderr)
        return 2
    install()
    script = ModuleType("__main__")
    script.__file__ = path
    script.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.argv[:] = arguments
    sys.path[0] = str(Path(path).resolve().parent)
    sys.modules["__main__"] = script
    exec(compile(source, path, "exec", dont_inherit=True), script.__dict__)
    return 0
