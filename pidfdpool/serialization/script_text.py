"""Reads a script's file, and tells what running it again would do: define names, or change the state of the process.

Called by `scripts`, when something is asked that only the file can tell: in the host on the thread that submits, in
workers on their thread. Nothing is run; the file is parsed. Most programs never need this.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator
    from typing import Any

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


class Analysis:
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


def analysed(path: str | None) -> Analysis:
    """Return what the script in a file is like. None: it has no file."""
    if path is None:
        return Analysis("it has no file")
    import ast

    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Analysis(f"{path} cannot be read as Python ({type(error).__name__}: {error})")
    if not _has_guard(tree):
        return Analysis(f'{path} has no `if __name__ == "__main__":`')
    names = getattr(sys.modules.get("__main__"), "__dict__", {})
    return Analysis(
        "", _changes_process(tree, names), frozenset(_bound_names(tree)), frozenset(_process_local_names(tree))
    )


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
        if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Call):
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
