"""Describes the script that is this process's `__main__`, and tells whether it may be run again for workers.

`multiprocessing` runs the script again in each process that it spawns, as a module that is not called `__main__`. So
a script that is meant to be used with processes has its work behind `if __name__ == "__main__":`. If a script has
such a guard, a pool's template can run it to get what does not travel by value; see `worker.script_module`.

Called in the host on the thread that submits. In the template and its workers the host's description is used. The
only side effect is that the script's file is read.
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
FAILURE = "__pidfdpool_failure__"  # there, too: how running the script again ended, if it failed

# Beginnings of functions and methods that change the state of the process, if they belong to something imported.
_SETTERS = (
    "set", "seed", "register", "filter", "simplefilter", "basicConfig", "dictConfig", "fileConfig", "addHandler",
    "addFilter", "captureWarnings", "enable", "disable", "configure", "install", "patch", "use", "init", "signal",
)  # fmt: skip
_NOT_SETTERS = frozenset({"setdefault"})
# Calls whose result is valid only in this process, though it is a number.
_PROCESS_LOCAL_CALLS = frozenset({
    "pipe", "pipe2", "open", "dup", "memfd_create", "eventfd", "openpty", "pidfd_open", "timerfd_create", "fileno",
    "getpid", "get_ident", "get_native_id", "id",
})  # fmt: skip


class Script:
    """A description of one script. Its file is read once, when something is asked that only the file can tell.

    path: its file, or None. module: the name under which `python -m` has run it, or None.
    """

    __slots__ = ("_analysis", "_obstacle", "module", "path")

    def __init__(self, path: str | None, module: str | None, obstacle: str = "") -> None:
        """obstacle: why it cannot be run again, if that is known already."""
        self.path: str | None = path
        self.module: str | None = module
        self._obstacle = obstacle
        self._analysis: _Analysis | None = None

    def as_fields(self) -> tuple[str | None, str | None, str]:
        """Return plain data from which `Script(*fields)` makes it again."""
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
        """Whether it changes, outside of its guard, the state of the process: logging, a random generator."""
        return self._read().changes_process

    @property
    def process_local(self) -> frozenset[str]:
        """Those of its names whose numbers are valid only in the host's process: descriptors, ids."""
        return self._read().process_local

    @property
    def names(self) -> frozenset[str]:
        """The names that it defines or assigns outside of its guard."""
        return self._read().names

    def _read(self) -> _Analysis:
        if self._analysis is None:
            self._analysis = _analysed(self.path)
        return self._analysis


class _Analysis:
    """What the text of a script's file tells."""

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
    """Ends the rebuilding of a call in a worker: it needs a value that only running the script again can make.

    It is not an Exception, so that nobody mistakes it for a failure of the call.
    """


ran_again = False  # the script was run again in this process, or in the one from which it was forked
_known: tuple[object, object, Script] | None = None  # the last result, for which `__main__` and which file
received: Script | None = None  # in a template and its workers: the host's description


def current() -> Script:
    """Return what is known of this process's script. Reads the script's file once."""
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
        return Script(None, None, "there is no script: the code was typed in, or did not come from a file")
    return Script(os.path.abspath(os.path.join(_initial_directory(), path)), module)


def _initial_directory() -> str:
    """Return the directory in which the process started, if known: a script's path may be relative to it."""
    began: str | None = getattr(sys.modules.get("multiprocessing.process"), "ORIGINAL_DIR", None)
    if began is not None:
        return began
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _host_branch(condition: ast.expr) -> str | None:
    """Return which branch of a condition only the host runs: "body" or "orelse"; None: the condition is no guard.

    Scripts ask for `__name__`, for the process's name, or for its parent process.
    """
    import ast

    for node in ast.walk(condition):
        if isinstance(node, ast.Compare):
            identifiers = {each for side in (node.left, *node.comparators) for each in _identifiers(side)}
            if (
                identifiers >= {"__name__", "__main__"}
                or identifiers >= {"name", "MainProcess"}
                or "parent_process" in identifiers
            ):
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
    """Return whether the script tells host and workers apart, at its top level or in a function called there."""
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
    """Yield the statements outside of the guard, including those in branches."""
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
    """Yield assignments to the names that the head of a compound statement binds: `for x in`, `with a as x`."""
    import ast

    heads: list[ast.AST | None] = [getattr(statement, name, None) for name in ("target", "test", "iter", "subject")]
    for item in getattr(statement, "items", ()):
        heads += item.context_expr, item.optional_vars
    for case in getattr(statement, "cases", ()):
        heads += case.pattern, case.guard
    for head in heads:
        for node in ast.walk(head) if head is not None else ():
            name = node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None
            # Names that a pattern captures: MatchAs and MatchStar have a name, MatchMapping has a rest.
            captured = name or getattr(node, "name", None) or getattr(node, "rest", None)
            if isinstance(captured, str):
                yield ast.Assign([ast.Name(captured, ast.Store())], ast.Constant(None), lineno=statement.lineno)


def _bound_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that the script binds outside of its guard; of branches, all that may be bound."""
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
    """Return what `from module import *` binds. The module is loaded, since the script has been run."""
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
    """Return whether a statement outside of the guard clearly changes something in a module that it imported.

    That it prints, writes into files, or changes its own objects is no reason to run it again.
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
    """Return whether a module, or what comes from one, is neither installed nor in the standard library."""
    module = sys.modules.get(str(getattr(value, "__module__", None) or getattr(value, "__name__", "")))
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or getattr(module, "__name__", "").partition(".")[0] in sys.stdlib_module_names:
        return False
    return "site-packages" not in file and "dist-packages" not in file


def _root_name(node: ast.expr) -> str:
    """Return the name with which an expression such as `a.b().c` begins; empty: it begins with something else."""
    import ast

    while isinstance(node, ast.Attribute | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_setter(name: str) -> bool:
    return name.lower().startswith(_SETTER_PREFIXES) and name not in _NOT_SETTERS


_SETTER_PREFIXES = tuple(name.lower() for name in _SETTERS)
