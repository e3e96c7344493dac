"""Annotations, lazy imports, type parameters and the like: reduced here, and rebuilt in a worker."""

from __future__ import annotations

import functools
import logging
import pickle
import sys
import types
import typing

import pytest

from pidfdpool.serialization import namespaces, payload, reconstructors, reducers
from tests.serialization.far_side import dumped

since_312 = pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
since_313 = pytest.mark.skipif(sys.version_info < (3, 13), reason="new in 3.13")
since_314 = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in 3.14")
since_315 = pytest.mark.skipif(sys.version_info < (3, 15), reason="new in 3.15")


@pytest.fixture
def run(main):
    """Return a function that runs statements as the script's, without this file's `from __future__`."""
    return lambda code: exec(compile(code, "<string>", "exec", dont_inherit=True), vars(main))


def reduced(value):
    """Return what a value is rebuilt to in this process."""
    made = reducers.REDUCERS[type(value)](value)
    return made[0](*made[1])


# ---- annotations -------------------------------------------------------------------------------------------------


def annotated(text):
    names: dict = {"__name__": "__main__"}
    exec(compile(text, "<string>", "exec", dont_inherit=True), names)
    return names["f"]


def by_value(_function):
    return True


def by_name(_function):
    return False


@since_314
def test_annotations_travel_unevaluated_where_python_keeps_them_so():
    import annotationlib

    for text in ("def f(a: Missing) -> int: pass", "class f:\n    a: Missing"):
        value = annotated(text)
        name, annotate = reducers.annotations_of(value, by_value)
        assert (name, annotate) == ("__annotate__", value.__annotate__)
        name, evaluated = reducers.annotations_of(value, by_name)
        assert name == "__annotations__"
        assert type(evaluated["a"]) is annotationlib.ForwardRef
    value.__annotations__ = {"a": 5}
    assert reducers.annotations_of(value, by_value) == ("__annotations__", {"a": 5})
    assert reducers.annotations_of(annotated("def f(): pass"), by_value) == ("__annotations__", {})
    made = annotated("def f(): pass")
    made.__annotate__ = functools.partial(lambda extra, _format: {"a": extra}, int)
    assert reducers.annotations_of(made, by_value) == ("__annotations__", {"a": int})


@since_314
def test_the_function_that_evaluates_annotations_is_known_by_its_name():
    assert reducers.is_annotate(annotated("def f(a: int): pass").__annotate__)
    assert not reducers.is_annotate(annotated("def f(a: int): pass"))


FUTURE = "from __future__ import annotations\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (FUTURE + "def f(a: list[B], *, c: D.e = 1) -> F: pass", {"list", "B", "D", "e", "F"}),
        (FUTURE + "class f:\n    a: dict[B, c1]\n    b: Ünï", {"dict", "B", "c1", "Ünï"}),
        (FUTURE + "def f(): pass", set()),
        ("class f: pass", set()),
        ("def f(): pass", set()),
        ("def f(a: 'B[1]', b: int): pass", {"B"}),
        ("class f:\n    a: 'B'\n    b: int", {"B"}),
        ("def f(): pass\nf.__annotations__ = {'a': 'B', 'c': int, 'd': None}", {"B"}),
    ],
)
def test_names_in_annotations_that_are_text(text, names):
    """The names of parameters may be among them where Python keeps annotations as code."""
    found = set(reducers.names_in_annotations(annotated(text)))
    assert names <= found <= names | {"a", "b", "c", "return"}


@since_314
def test_annotations_that_a_library_makes_are_not_searched():
    made = annotated("def f(): pass")
    made.__annotate__ = functools.partial(lambda _format: {"a": "B"})
    assert list(reducers.names_in_annotations(made)) == []


def test_of_the_names_in_a_classes_body_only_those_in_annotations_travel():
    code = compile("used.attribute\nother", "<string>", "exec")
    cell = reducers.names_for_annotations(types.CellType({"used": 1, "unused": 2}), code)
    assert cell.cell_contents == {"used": 1}
    empty = types.CellType()
    assert reducers.names_for_annotations(empty, code) is empty


@since_314
def test_annotations_may_use_names_of_the_body_of_their_class(main, run, far):
    run("import threading\n"
        "class C:\n"
        "    Own = int\n"
        "    lock = threading.Lock()\n"
        "    a: Own\n"
        "    def method(self, b: Own) -> 'Own': pass\n"
        "def local():\n"
        "    class Local:\n"
        "        Own = str\n"
        "        def method(self, b: Own): pass\n"
        "    return Local\n"
        "kept = local()\n"  # from 3.15 on the names are gone with the class
        "method = kept.method\n"
        "def look():\n"
        "    return method.__annotations__\n")  # fmt: skip
    assert far.ask(main.look) == {"b": str}
    function = main.C.method
    function.__qualname__ = "elsewhere"
    made = far.load(payload.dumps_by_value(function, None))
    assert made.__annotations__ == {"b": int, "return": "Own"}


@since_314
@pytest.mark.parametrize("known", [True, False], ids=["received", "not received"])
def test_a_forward_reference_is_evaluated_where_it_arrives(known):
    import annotationlib

    reference = annotationlib.ForwardRef("Missing", owner=dict, is_class=True)
    reference.__globals__ = {"__name__": "its_module", "Missing": 1}
    reference.__extra_names__ = {"more": 2}
    before = dict(namespaces.globals_by_module)
    try:
        if known:
            namespaces.globals_by_module["its_module"] = {"Missing": 5}
        made = reduced(reference)
    finally:
        namespaces.globals_by_module.clear()
        namespaces.globals_by_module.update(before)
    assert (made.__forward_arg__, made.__owner__, made.__forward_is_class__) == ("Missing", dict, True)
    assert made.__extra_names__ == {"more": 2}
    if known:
        assert made.__globals__ == {"Missing": 5}
        assert made.evaluate() == 5
    else:
        assert (made.__globals__, made.__forward_module__) == (None, "its_module")


@since_314
def test_a_forward_reference_may_name_its_module_or_none():
    import annotationlib

    made = reduced(annotationlib.ForwardRef("decoder", module="json"))
    assert (made.__forward_module__, made.__owner__, made.__forward_is_class__) == ("json", None, False)
    assert made.evaluate() is sys.modules["json"].decoder
    assert reduced(annotationlib.ForwardRef("int")).__forward_module__ is None


# ---- lazy imports ------------------------------------------------------------------------------------------------


@since_315
@pytest.mark.parametrize(
    ("statement", "name", "value"),
    [
        ("lazy import a_lazy_one", "a_lazy_one", "a_lazy_one"),
        ("lazy import a_lazy_one.part", "a_lazy_one", "a_lazy_one"),
        ("lazy import a_lazy_one.part", "a_lazy_one.part.Own", "Own"),
        ("lazy import a_lazy_one as other", "other", "a_lazy_one"),
        ("lazy import a_lazy_one.part as other", "other", "a_lazy_one.part"),
        ("lazy import a_lazy_one.sub.deep as other", "other", "a_lazy_one.sub.deep"),
        ("lazy from a_lazy_one.sub import deep", "deep", "a_lazy_one.sub.deep"),
        ("lazy from a_lazy_one import part", "part", "a_lazy_one.part"),
        ("lazy from a_lazy_one.part import Own", "Own", "Own"),
        ("lazy from a_lazy_one import Top as other", "other", "Top"),
    ],
)
def test_a_lazy_import_arrives_unused_and_binds_the_same(
    main, run, far, tmp_path, monkeypatch, statement, name, value
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_lazy_one" / "sub").mkdir(parents=True)
    for file, text in {"__init__": "class Top: pass", "part": "class Own: pass", "sub/deep": ""}.items():
        (tmp_path / "a_lazy_one" / f"{file}.py").write_text(text)
    run(f"{statement}\ndef look(use):\n    return {name}.__name__ if use else None")
    try:
        assert far.ask(main.look, False) is None
        assert "a_lazy_one" not in sys.modules
        assert far.ask(main.look, True) == value
    finally:
        for each in [each for each in sys.modules if each.partition(".")[0] == "a_lazy_one"]:
            del sys.modules[each]


# ---- type parameters and new types -------------------------------------------------------------------------------


def make_parameters():
    keywords: dict = {"infer_variance": True} if sys.version_info >= (3, 12) else {}
    yield typing.TypeVar("T", bound=int)
    yield typing.TypeVar("T_co", covariant=True)
    yield typing.TypeVar("T_contra", contravariant=True)
    yield typing.TypeVar("T_of", int, str)
    yield typing.TypeVar("T_any", **keywords)
    yield typing.ParamSpec("P")
    yield typing.TypeVarTuple("Ts")
    if sys.version_info >= (3, 13):
        yield typing.TypeVar("T_default", default=int)
        yield typing.TypeVar("T_none", default=None)
        yield typing.ParamSpec("P_default", default=[int])
        yield typing.TypeVarTuple("Ts_default", default=typing.Unpack[tuple[int]])


def parts(parameter):
    names = "name", "bound", "covariant", "contravariant", "infer_variance", "constraints", "default", "module"
    return {name: getattr(parameter, f"__{name}__", None) for name in names}


def test_type_parameters_have_all_their_parts(far):
    for parameter in make_parameters():
        parameter.__module__ = "of_nobody"
        data = payload.dumps_by_value([parameter, lambda: 0], None)
        made = far.load(data)[0]
        assert made is not parameter
        assert type(made) is type(parameter)
        assert parts(made) == parts(parameter)
        assert getattr(made, "has_default", bool)() is getattr(parameter, "has_default", bool)()
        assert far.load(data)[0] is made, "it is the same one wherever it turns up"
        assert payload.loads(far.pickled([made, lambda: 0]))[0] is parameter


def test_new_types_have_all_their_parts(far):
    new = typing.NewType("Outer.UserId", int)
    new.__module__ = "of_nobody"
    data = payload.dumps_by_value([new, lambda: 0], None)
    made = far.load(data)[0]
    assert made is not new
    assert (made.__name__, made.__qualname__) == (new.__name__, new.__qualname__)
    assert (made.__module__, made.__supertype__) == ("of_nobody", int)
    assert far.load(data)[0] is made


OWN = typing.TypeVar("OWN")
OwnType = typing.NewType("OwnType", int)


def test_those_of_an_importable_module_travel_by_name(far):
    import cloudpickle

    for value in (OWN, OwnType, typing.AnyStr):
        assert far.load(payload.dumps_by_value([value, lambda: 0], None))[0] is value
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        for value in (OWN, OwnType):
            assert far.load(payload.dumps_by_value([value, lambda: 0], None))[0] is not value
    finally:
        cloudpickle.unregister_pickle_by_value(module)


@since_312
def test_an_alias_is_evaluated_when_it_is_first_used(main, run, far):
    run("type Pair[A] = tuple[A, A]\n"
        "type Tree = list[Tree] | int\n"
        "type Late = Later\n"
        "def give(): return Pair, Tree, Late\n")  # fmt: skip
    main.Later = dict
    pair, tree, late = far.call(dumped(main.give))
    assert [each.__name__ for each in (pair, tree, late)] == ["Pair", "Tree", "Late"]
    assert [each.__module__ for each in (tree, late)] == ["__main__"] * 2
    with far.here():
        assert [each.__name__ for each in pair.__type_params__] == ["A"]
        assert pair.__value__ == tuple[pair.__type_params__[0], pair.__type_params__[0]]
        assert tree.__value__ == list[tree] | int
        assert late.__value__ is dict
        assert pair[int].__args__ == (int,)


@since_315
def test_sentinels_have_their_text_and_their_module(main, run, far):
    run("PLAIN, SHOWN = sentinel('PLAIN'), sentinel('SHOWN', repr='<it>')\ndef look():\n    return PLAIN, SHOWN")
    plain, shown = far.call(dumped(main.look))
    assert (repr(plain), repr(shown)) == ("PLAIN", "<it>")
    assert plain is far.names["PLAIN"]
    assert plain.__module__ == shown.__module__ == "__main__"
    assert far.ask(main.look) == (main.PLAIN, main.SHOWN)


# ---- loggers and descriptors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arrives"),
    [
        ("a.logger.of.tests", "a.logger.of.tests"),
        ("__main__", "{main}"),
        ("__mp_main__", "{main}"),
        ("__mp_main__.part.of", "{main}.part.of"),
        ("__main__x", "__main__x"),
        ("other.__main__", "other.__main__"),
    ],
)
@pytest.mark.parametrize("own", ["__main__", "__mp_main__"])
def test_the_scripts_logger_is_the_one_that_the_script_has_there(main, name, arrives, own):
    main.__name__ = own
    assert reduced(logging.getLogger(name)) is logging.getLogger(arrives.format(main=own))


def test_a_cached_property_and_a_partial_method_arrive_complete():
    made = reduced(functools.cached_property(len))
    assert (made.func, made.attrname) == (len, None)

    class C:
        size = functools.cached_property(lambda _self: 5)

    made = reduced(vars(C)["size"])
    assert (made.func, made.attrname) == (vars(C)["size"].func, "size")
    made = reduced(functools.partialmethod(print, 1, 2, sep=","))
    assert (made.func, made.args, made.keywords) == (print, (1, 2), {"sep": ","})


def test_attributes_are_found_by_their_dotted_names():
    assert reconstructors.get_attribute(typing, "TYPE_CHECKING") is False
    assert reconstructors.get_attribute(pickle, "Pickler.dump.__name__") == "dump"
    with pytest.raises(AttributeError):
        reconstructors.get_attribute(pickle, "Pickler.nothing")
