"""What is known of the script that is this process's `__main__`, and whether it may be run once more for workers.

`multiprocessing` runs the script again in each process that it spawns, as a module that is not called `__main__`. A
script that is meant to be used with processes has its work behind `if __name__ == "__main__":` for that reason. Where
a script has such a guard, a pool's template can have from it what does not travel by value; see `script_module`.

Pure, but for the look at its file. In the host, on the thread that submits; in the template and its workers a script
is described by what the host has sent.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator
    from types import ModuleType
    from typing import Any

STAND_IN = "__pidfdpool_stand_in__"  # in the globals of the module that stands for the script in a worker
FAILURE = "__pidfdpool_failure__"  # there, too: how running the script again has ended, if that was no good end

# What a statement of a script's may do to the process: names of functions and methods of what it has imported.
_SETTERS = (
    "set", "seed", "register", "filter", "simplefilter", "basicConfig", "dictConfig", "fileConfig", "addHandler",
    "addFilter", "captureWarnings", "enable", "disable", "configure", "install", "patch", "use", "init", "signal",
)  # fmt: skip
_NOT_SETTERS = frozenset({"setdefault"})
# Calls whose result means something in this process only, though it is a number.
_OF_PROCESS = frozenset({
    "pipe", "pipe2", "open", "dup", "memfd_create", "eventfd", "openpty", "pidfd_open", "timerfd_create", "fileno",
    "getpid", "get_ident", "get_native_id", "id",
})  # fmt: skip


class Script:
    """One script. Its file is read when something is asked that only the file can tell, and then once.

    path: its file, or None. module: the name under which `python -m` has run it, or None.
    """

    __slots__ = ("_contents", "_why_not", "module", "path")

    def __init__(self, path: str | None, module: str | None, why_not: str = "") -> None:
        """why_not: why it cannot be run again, if that is known already."""
        self.path = path
        self.module = module
        self._why_not = why_not
        self._contents: _Contents | None = None

    def as_fields(self) -> tuple[str | None, str | None, str]:
        """Return plain data, of which `Script(*fields)` makes it again."""
        return self.path, self.module, self._why_not

    @property
    def why_not(self) -> str:
        """Why it cannot be run again; empty: it can."""
        return self._why_not or (self._contents or self._read()).why_not

    @property
    def can_run_again(self) -> bool:
        """Whether a template may run it."""
        return not self.why_not

    @property
    def sets_up(self) -> bool:
        """Whether it changes, outside of its guard, what belongs to the process: the logging, a random generator."""
        return self._read().sets_up

    @property
    def of_process(self) -> frozenset[str]:
        """Those of its names that are assigned numbers which mean something in one process only: descriptors, ids."""
        return self._read().of_process

    @property
    def names(self) -> frozenset[str]:
        """What it defines or assigns outside of its guard."""
        return self._read().names

    def _read(self) -> _Contents:
        if self._contents is None:
            self._contents = _contents_of(self.path)
        return self._contents


class _Contents:
    """What a script's file tells."""

    __slots__ = ("names", "of_process", "sets_up", "why_not")

    def __init__(
        self,
        why_not: str,
        sets_up: bool = False,
        names: frozenset[str] = frozenset(),
        of_process: frozenset[str] = frozenset(),
    ) -> None:
        self.why_not = why_not
        self.sets_up = sets_up
        self.names = names
        self.of_process = of_process


def _contents_of(path: str | None) -> _Contents:
    if path is None:
        return _Contents("it has no file")
    import ast

    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _Contents(f"{path} cannot be read as Python ({type(error).__name__}: {error})")
    if not _has_guard(tree):
        return _Contents(f'{path} has no `if __name__ == "__main__":`')
    names = getattr(sys.modules.get("__main__"), "__dict__", {})
    return _Contents("", _sets_up(tree, names), frozenset(_names_bound(tree)), frozenset(_names_of_process(tree)))


class NeedsScript(BaseException):
    """Ends the rebuilding of a call in a worker: what it needs can only be made by running the script again.

    No Exception, so that nobody takes it for a failure of the call.
    """


ran = False  # the script was run again in this process, or in the one that it was forked from
_known: tuple[object, object, Script] | None = None  # what was found of which `__main__` and file
described: Script | None = None  # in a template and its workers: what the host has said


def current() -> Script:
    """Return what is known of this process's script. Reads its file, once."""
    global _known  # noqa: PLW0603  per process; to look twice does no harm
    if described is not None:
        return described
    main: Any = sys.modules.get("__main__")
    known = _known
    if known is not None and known[0] is main and known[1] is getattr(main, "__file__", None):
        return known[2]
    script = _look_at(main)
    _known = main, getattr(main, "__file__", None), script
    return script


def _look_at(main: ModuleType | None) -> Script:
    names = getattr(main, "__dict__", {})
    spec, path = names.get("__spec__"), names.get("__file__")
    module: str | None = getattr(spec, "name", None)
    if module is not None and (module == "__main__" or module.endswith(".__main__")):
        # multiprocessing does not run a package's __main__ again either (multiprocessing/spawn.py).
        return Script(None, None, "it is the __main__ of a package, a folder or an archive")
    if getattr(spec, "origin", None) is not None:
        path = spec.origin  # type: ignore[union-attr]
    if not isinstance(path, str) or path[:1] + path[-1:] == "<>":  # "<stdin>"
        return Script(None, None, "there is no script: the code was typed in, or came from elsewhere than a file")
    return Script(os.path.abspath(os.path.join(_began_in(), path)), module)


def _began_in() -> str:
    """Return the directory in which the process began, if that is known: a script's path may be relative to it."""
    began: str | None = getattr(sys.modules.get("multiprocessing.process"), "ORIGINAL_DIR", None)
    if began is not None:
        return began
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _guards(condition: ast.expr) -> str | None:
    """Return which branch of a condition is the host's alone: "body" or "orelse"; None: it does not tell.

    Scripts ask for `__name__`, for the process's name, or whether it has a parent that multiprocessing knows.
    """
    import ast

    for node in ast.walk(condition):
        if isinstance(node, ast.Compare):
            told = {each for side in (node.left, *node.comparators) for each in _words(side)}
            if told >= {"__name__", "__main__"} or told >= {"name", "MainProcess"} or "parent_process" in told:
                return "orelse" if isinstance(node.ops[0], ast.NotEq | ast.IsNot) else "body"
    return None


def _words(node: ast.expr) -> Iterator[str]:
    """Yield the name, the last attribute, or the text that an expression consists of."""
    import ast

    if isinstance(node, ast.Call):
        node = node.func
    for field in ("id", "attr", "value"):
        word = getattr(node, field, None)
        if isinstance(word, str):
            yield word


def _has_guard(tree: ast.Module) -> bool:
    """Return whether the script tells host and workers apart, at its top or in a function that it calls there."""
    import ast

    called = {
        getattr(statement.value.func, "id", "")
        for statement in tree.body
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    }
    bodies = [tree.body]
    bodies += [each.body for each in tree.body if isinstance(each, ast.FunctionDef) and each.name in called]
    return any(_asks(statement) for body in bodies for statement in body)


def _asks(statement: ast.stmt) -> bool:
    import ast

    return isinstance(statement, ast.If) and _guards(statement.test) is not None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run whenever the script does, and those in their branches."""
    import ast

    for statement in body:
        guarded = _guards(statement.test) if isinstance(statement, ast.If) else None
        if guarded is not None:
            yield from _statements(getattr(statement, "orelse" if guarded == "body" else "body"))
        elif isinstance(statement, _compounds()):
            yield from _headers(statement)
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, part, []))
            for branch in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                yield from _statements(branch.body)
        else:
            yield statement


def _compounds() -> tuple[type[ast.stmt], ...]:
    import ast

    return ast.If, ast.Try, ast.TryStar, ast.With, ast.For, ast.While, ast.Match


def _headers(statement: ast.stmt) -> Iterator[ast.stmt]:
    """Yield statements that bind the names which the head of a compound one binds: `for x in`, `with a as x`."""
    import ast

    heads: list[ast.AST | None] = [getattr(statement, name, None) for name in ("target", "test", "iter", "subject")]
    for item in getattr(statement, "items", ()):
        heads += item.context_expr, item.optional_vars
    for case in getattr(statement, "cases", ()):
        heads += case.pattern, case.guard
    for head in heads:
        for node in ast.walk(head) if head is not None else ():
            name = node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None
            # What a pattern captures: MatchAs and MatchStar have a name, MatchMapping a rest.
            captured = name or getattr(node, "name", None) or getattr(node, "rest", None)
            if isinstance(captured, str):
                yield ast.Assign([ast.Name(captured, ast.Store())], ast.Constant(None), lineno=statement.lineno)


def _names_bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names that the script binds whenever it runs. Of those in branches, all that may be bound."""
    import ast

    for statement in _statements(tree.body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                if alias.name == "*":
                    yield from _names_in(statement)  # type: ignore[arg-type]
                else:
                    yield (alias.asname or alias.name).partition(".")[0]
        else:
            yield from _stored_in(statement)
            if type(statement).__name__ == "TypeAlias":  # Python 3.12
                yield statement.name.id  # type: ignore[attr-defined]


def _names_in(star: ast.ImportFrom) -> list[str]:
    """Return what `from module import *` binds. The module is there, since the script has been run."""
    from importlib.util import resolve_name

    package = getattr(sys.modules.get("__main__"), "__package__", None)
    try:
        module = sys.modules[resolve_name("." * star.level + (star.module or ""), package)]
    except (KeyError, ImportError):
        return []
    public: list[str] = getattr(module, "__all__", None) or [name for name in vars(module) if name[0] != "_"]
    return list(public)


def _names_of_process(tree: ast.Module) -> Iterator[str]:
    import ast

    for statement in _statements(tree.body):
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            function = statement.value.func
            if getattr(function, "attr", getattr(function, "id", "")) in _OF_PROCESS:
                yield from _stored_in(statement)


def _stored_in(statement: ast.stmt) -> Iterator[str]:
    import ast

    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _sets_up(tree: ast.Module, names: dict[str, Any]) -> bool:
    """Return whether a statement outside of the guard plainly changes something of a module that it has imported.

    What it prints, writes into files, or does to objects of its own is no reason to run it again.
    """
    import ast

    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for statement in _statements(tree.body)
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for alias in statement.names
    }
    logger = getattr(sys.modules.get("logging"), "Logger", ())
    for statement in _statements(tree.body):
        if isinstance(statement, ast.Assign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Attribute) and _root(target) in imported for target in targets):
                return True
            continue
        called = [*getattr(statement, "decorator_list", ())]
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            called.append(statement.value)
            function = statement.value.func
            root, last = _root(function), getattr(function, "attr", getattr(function, "id", ""))
            if _is_setter(last) and (root in imported or isinstance(names.get(root), logger)):
                return True
        if any(root in imported and _is_of_the_users(names.get(root)) for root in map(_root, called)):
            return True
    return False


def _is_of_the_users(value: object) -> bool:
    """Return whether a module, or what comes from one, is neither installed nor the standard library's."""
    module = sys.modules.get(str(getattr(value, "__module__", None) or getattr(value, "__name__", "")))
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or getattr(module, "__name__", "").partition(".")[0] in sys.stdlib_module_names:
        return False
    return "site-packages" not in file and "dist-packages" not in file


def _root(node: ast.expr) -> str:
    """Return the name that an expression such as `a.b().c` begins with; empty: it begins otherwise."""
    import ast

    while isinstance(node, ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_setter(name: str) -> bool:
    return name.lower().startswith(_LOWER) and name not in _NOT_SETTERS


_LOWER = tuple(name.lower() for name in _SETTERS)
