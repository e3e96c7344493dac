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
_PROCESS_LOCAL_CALLS = frozenset({
    "pipe", "pipe2", "open", "dup", "memfd_create", "eventfd", "openpty", "pidfd_open", "timerfd_create", "fileno",
    "getpid", "get_ident", "get_native_id", "id",
})  # fmt: skip


class Script:
    """One script. Its file is read when something is asked that only the file can tell, and then once.

    path: its file, or None. module: the name under which `python -m` has run it, or None.
    """

    __slots__ = ("_analysis", "_obstacle", "module", "path")

    def __init__(self, path: str | None, module: str | None, obstacle: str = "") -> None:
        """why_not: why it cannot be run again, if that is known already."""
        self.path = path
        self.module = module
        self._obstacle = obstacle
        self._analysis: _Analysis | None = None

    def as_fields(self) -> tuple[str | None, str | None, str]:
        """Return plain data, of which `Script(*fields)` makes it again."""
        return self.path, self.module, self._obstacle

    @property
    def obstacle(self) -> str:
        """Why it cannot be run again; empty: it can."""
        return self._obstacle or (self._analysis or self._read()).obstacle

    @property
    def can_run_again(self) -> bool:
        """Whether a template may run it."""
        return not self.obstacle

    @property
    def changes_process(self) -> bool:
        """Whether it changes, outside of its guard, what belongs to the process: the logging, a random generator."""
        return self._read().changes_process

    @property
    def process_local(self) -> frozenset[str]:
        """Those of its names that are assigned numbers which mean something in one process only: descriptors, ids."""
        return self._read().process_local

    @property
    def names(self) -> frozenset[str]:
        """What it defines or assigns outside of its guard."""
        return self._read().names

    def _read(self) -> _Analysis:
        if self._analysis is None:
            self._analysis = _analysed(self.path)
        return self._analysis


class _Analysis:
    """What a script's file tells."""

    __slots__ = ("changes_process", "names", "obstacle", "process_local")

    def __init__(
        self,
        obstacle: str,
        changes_process: bool = False,
        names: frozenset[str] = frozenset(),
        process_local: frozenset[str] = frozenset(),
    ) -> None:
        self.obstacle = obstacle
        self.changes_process = changes_process
        self.names = names
        self.process_local = process_local


def _analysed(path: str | None) -> _Analysis:
    if path is None:
        return _Analysis("it has no file")
    import ast

    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return _Analysis(f"{path} cannot be read as Python ({type(error).__name__}: {error})")
    if not _has_guard(tree):
        return _Analysis(f'{path} has no `if __name__ == "__main__":`')
    names = getattr(sys.modules.get("__main__"), "__dict__", {})
    return _Analysis(
        "", _changes_process(tree, names), frozenset(_bound_names(tree)), frozenset(_process_local_names(tree))
    )


class NeedsScript(BaseException):
    """Ends the rebuilding of a call in a worker: what it needs can only be made by running the script again.

    No Exception, so that nobody takes it for a failure of the call.
    """


ran_again = False  # the script was run again in this process, or in the one that it was forked from
_known: tuple[object, object, Script] | None = None  # what was found of which `__main__` and file
received: Script | None = None  # in a template and its workers: what the host has said


def current() -> Script:
    """Return what is known of this process's script. Reads its file, once."""
    global _known  # noqa: PLW0603  per process; to look twice does no harm
    if received is not None:
        return received
    main: Any = sys.modules.get("__main__")
    known = _known
    if known is not None and known[0] is main and known[1] is getattr(main, "__file__", None):
        return known[2]
    script = _described(main)
    _known = main, getattr(main, "__file__", None), script
    return script


def _described(main: ModuleType | None) -> Script:
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
    return Script(os.path.abspath(os.path.join(_initial_directory(), path)), module)


def _initial_directory() -> str:
    """Return the directory in which the process began, if that is known: a script's path may be relative to it."""
    began: str | None = getattr(sys.modules.get("multiprocessing.process"), "ORIGINAL_DIR", None)
    if began is not None:
        return began
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _host_branch(condition: ast.expr) -> str | None:
    """Return which branch of a condition is the host's alone: "body" or "orelse"; None: it does not tell.

    Scripts ask for `__name__`, for the process's name, or whether it has a parent that multiprocessing knows.
    """
    import ast

    for node in ast.walk(condition):
        if isinstance(node, ast.Compare):
            told = {each for side in (node.left, *node.comparators) for each in _identifiers(side)}
            if told >= {"__name__", "__main__"} or told >= {"name", "MainProcess"} or "parent_process" in told:
                return "orelse" if isinstance(node.ops[0], ast.NotEq | ast.IsNot) else "body"
    return None


def _identifiers(node: ast.expr) -> Iterator[str]:
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
    return any(_is_guard(statement) for body in bodies for statement in body)


def _is_guard(statement: ast.stmt) -> bool:
    import ast

    return isinstance(statement, ast.If) and _host_branch(statement.test) is not None


def _unguarded_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run whenever the script does, and those in their branches."""
    import ast

    for statement in body:
        guarded = _host_branch(statement.test) if isinstance(statement, ast.If) else None
        if guarded is not None:
            yield from _unguarded_statements(getattr(statement, "orelse" if guarded == "body" else "body"))
        elif isinstance(statement, _compounds()):
            yield from _head_bindings(statement)
            for part in ("body", "orelse", "finalbody"):
                yield from _unguarded_statements(getattr(statement, part, []))
            for branch in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                yield from _unguarded_statements(branch.body)
        else:
            yield statement


def _compounds() -> tuple[type[ast.stmt], ...]:
    import ast

    return ast.If, ast.Try, ast.TryStar, ast.With, ast.For, ast.While, ast.Match


def _head_bindings(statement: ast.stmt) -> Iterator[ast.stmt]:
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


def _bound_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that the script binds whenever it runs. Of those in branches, all that may be bound."""
    import ast

    for statement in _unguarded_statements(tree.body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                if alias.name == "*":
                    yield from _star_import_names(statement)  # type: ignore[arg-type]
                else:
                    yield (alias.asname or alias.name).partition(".")[0]
        else:
            yield from _assigned_names(statement)
            if type(statement).__name__ == "TypeAlias":  # Python 3.12
                yield statement.name.id  # type: ignore[attr-defined]


def _star_import_names(star: ast.ImportFrom) -> list[str]:
    """Return what `from module import *` binds. The module is there, since the script has been run."""
    from importlib.util import resolve_name

    package = getattr(sys.modules.get("__main__"), "__package__", None)
    try:
        module = sys.modules[resolve_name("." * star.level + (star.module or ""), package)]
    except (KeyError, ImportError):
        return []
    public: list[str] = getattr(module, "__all__", None) or [name for name in vars(module) if name[0] != "_"]
    return list(public)


def _process_local_names(tree: ast.Module) -> Iterator[str]:
    import ast

    for statement in _unguarded_statements(tree.body):
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            function = statement.value.func
            if getattr(function, "attr", getattr(function, "id", "")) in _PROCESS_LOCAL_CALLS:
                yield from _assigned_names(statement)


def _assigned_names(statement: ast.stmt) -> Iterator[str]:
    import ast

    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _changes_process(tree: ast.Module, names: dict[str, Any]) -> bool:
    """Return whether a statement outside of the guard plainly changes something of a module that it has imported.

    What it prints, writes into files, or does to objects of its own is no reason to run it again.
    """
    import ast

    imported = {
        (alias.asname or alias.name).partition(".")[0]
        for statement in _unguarded_statements(tree.body)
        if isinstance(statement, ast.Import | ast.ImportFrom)
        for alias in statement.names
    }
    logger = getattr(sys.modules.get("logging"), "Logger", ())
    for statement in _unguarded_statements(tree.body):
        if isinstance(statement, ast.Assign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Attribute) and _root_name(target) in imported for target in targets):
                return True
            continue
        called = [*getattr(statement, "decorator_list", ())]
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            called.append(statement.value)
            function = statement.value.func
            root, last = _root_name(function), getattr(function, "attr", getattr(function, "id", ""))
            if _is_setter(last) and (root in imported or isinstance(names.get(root), logger)):
                return True
        if any(root in imported and _is_user_code(names.get(root)) for root in map(_root_name, called)):
            return True
    return False


def _is_user_code(value: object) -> bool:
    """Return whether a module, or what comes from one, is neither installed nor the standard library's."""
    module = sys.modules.get(str(getattr(value, "__module__", None) or getattr(value, "__name__", "")))
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or getattr(module, "__name__", "").partition(".")[0] in sys.stdlib_module_names:
        return False
    return "site-packages" not in file and "dist-packages" not in file


def _root_name(node: ast.expr) -> str:
    """Return the name that an expression such as `a.b().c` begins with; empty: it begins otherwise."""
    import ast

    while isinstance(node, ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_setter(name: str) -> bool:
    return name.lower().startswith(_SETTER_PREFIXES) and name not in _NOT_SETTERS


_SETTER_PREFIXES = tuple(name.lower() for name in _SETTERS)
