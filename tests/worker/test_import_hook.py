"""What waits for a module to be loaded: it is called at its end, once, and then nothing of it is left."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from pidfdpool.worker import import_hook

told: list = []
BODY = (
    f"from {__name__} import told; told.append((__name__, __spec__.loader is __loader__, type(__loader__).__name__))"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Give a folder of modules, and have the finders and modules of this process be as before afterwards."""
    told.clear()
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("waited_for", "another"):
        (tmp_path / f"{name}.py").write_text(BODY)
    (tmp_path / "package_of_them").mkdir()
    (tmp_path / "package_of_them" / "__init__.py").write_text("")
    (tmp_path / "package_of_them" / "part.py").write_text(BODY)
    yield tmp_path
    for name in ("waited_for", "another", "package_of_them", "package_of_them.part"):
        sys.modules.pop(name, None)


def ours():
    return [finder for finder in sys.meta_path if type(finder).__module__ == import_hook.__name__]


def tell(what):
    return lambda module: told.append((what, module))


def test_calls_are_made_with_the_loaded_module_in_their_order_and_once():
    import_hook.when_loaded("waited_for", tell("first"))
    import_hook.when_loaded("waited_for", tell("second"))
    module = importlib.import_module("waited_for")
    assert told == [("waited_for", True, "SourceFileLoader"), ("first", module), ("second", module)]
    assert ours() == []
    importlib.reload(module)
    assert len(told) == 4, "only its own body ran again"
    assert module.__spec__.loader is module.__loader__


@pytest.mark.parametrize("name", ["waited_for", "package_of_them.part"])
def test_other_modules_are_loaded_as_ever_and_each_has_its_own_calls(name):
    import_hook.when_loaded(name, tell("this"))
    import_hook.when_loaded("another", tell("other"))
    other = importlib.import_module("another")
    assert told == [("another", True, "SourceFileLoader"), ("other", other)]
    assert len(ours()) == 1
    module = importlib.import_module(name)
    assert told[2:] == [(name, True, "SourceFileLoader"), ("this", module)]


def test_whoever_else_waits_for_another_module_keeps_waiting():
    import_hook.when_loaded("another", tell("other"))
    import_hook.when_loaded("waited_for", tell("this"))
    module = importlib.import_module("waited_for")
    assert told[1:] == [("this", module)]
    other = importlib.import_module("another")
    assert told[3:] == [("other", other)]


def test_a_module_that_nobody_finds_is_missing_as_ever():
    import_hook.when_loaded("found_by_nobody", tell("this"))
    with pytest.raises(ModuleNotFoundError, match="No module named 'found_by_nobody'"):
        importlib.import_module("found_by_nobody")
    assert told == []


def test_an_import_that_fails_makes_no_call_and_the_next_one_does(folder):
    (folder / "waited_for.py").write_text("raise LookupError('broken')")
    import_hook.when_loaded("waited_for", tell("this"))
    with pytest.raises(LookupError, match="broken"):
        importlib.import_module("waited_for")
    assert told == []
    (folder / "waited_for.py").write_text("MENDED = 'with a text of another length'")
    importlib.invalidate_caches()
    module = importlib.import_module("waited_for")
    assert told == [("this", module)]


class Special(ModuleType):
    pass


class Own:
    """A finder and loader of the program's own, which comes before all others."""

    def find_spec(self, name, path, target=None):
        told.append((name, path, target))
        return ModuleSpec(name, self) if name == "waited_for" else None

    def create_module(self, spec):
        return Special(spec.name)

    def exec_module(self, module):
        module.filled = True


def test_a_module_that_is_found_by_the_programs_own_finder_is_as_that_makes_it():
    sys.meta_path.insert(0, Own())
    import_hook.when_loaded("waited_for", tell("this"))
    module = importlib.import_module("waited_for")
    assert (type(module), module.filled, type(module.__loader__)) == (Special, True, Own)
    assert told == [("waited_for", None, None), ("this", module)]


def test_a_finder_is_asked_where_in_the_package_and_for_which_module():
    import_hook.when_loaded("package_of_them.part", tell("this"))
    sys.meta_path.insert(0, own := Own())
    (finder,) = ours()
    assert finder.find_spec("package_of_them.part", ["nowhere"], sys) is None
    assert told == [("package_of_them.part", ["nowhere"], sys)]
    assert sys.meta_path[0] is own


def test_who_has_emptied_the_finders_meanwhile_is_not_troubled():
    def forget(_module):
        told.append("called")

    import_hook.when_loaded("waited_for", forget)
    (finder,) = ours()
    spec = finder.find_spec("waited_for", None)
    sys.meta_path.remove(finder)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert told[1:] == ["called"]
