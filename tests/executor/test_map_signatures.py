"""What type checkers are told of the forms of map is what there is, and each form passes on all that it is given."""

from __future__ import annotations

import inspect
import typing

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.executor import async_map, mapping
from pidfdpool.executor.lazy_list import LazyList
from pidfdpool.executor.maps import Maps

FORMS = {
    "map": (mapping, "in_order"),
    "map_unordered": (mapping, "as_they_come"),
    "amap": (async_map, "in_order"),
    "amap_unordered": (async_map, "as_they_come"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_overloads_have_the_arguments_and_defaults_of_the_method(form):
    method = inspect.signature(getattr(Maps, form)).parameters
    results, outcomes = (inspect.signature(each).parameters for each in typing.get_overloads(getattr(Maps, form)))
    for overloaded in (results, outcomes):
        assert list(overloaded) == list(method)
        for name, parameter in method.items():
            if overloaded is results or name != "return_exceptions":
                assert (overloaded[name].default, overloaded[name].kind) == (parameter.default, parameter.kind), name
    assert outcomes["return_exceptions"].default is inspect.Parameter.empty, "without it there are no outcomes"
    kinds = [each["return_exceptions"].annotation for each in (results, outcomes)]
    assert kinds == ["Literal[False]", "Literal[True]"]


@pytest.mark.parametrize("form", FORMS)
def test_all_that_a_form_is_given_is_passed_on_and_what_it_is_not_is_as_in_the_standard_library(form, monkeypatch):
    module, function = FORMS[form]
    monkeypatch.setattr(module, function, lambda *arguments, **how: (arguments, how))
    pool = PidfdPoolExecutor(1)
    plain = {"timeout": None, "chunksize": None, "buffersize": None, "return_exceptions": False, "star": False}
    assert getattr(pool, form)(abs, [1], [2]) == ((pool, abs, ([1], [2])), plain)
    how = {"timeout": 3.5, "chunksize": 4, "buffersize": 5, "return_exceptions": True, "star": True}
    assert getattr(pool, form)(abs, [1], **how) == ((pool, abs, ([1],)), how)


def test_a_list_that_is_made_at_its_first_access_stays_and_is_of_its_kind():
    class Kind(list):
        pass

    class Owner:
        items = LazyList(Kind)

    owner, other = Owner(), Owner()
    assert isinstance(Owner.items, LazyList)
    assert "items" not in vars(owner)
    assert (type(owner.items), owner.items) == (Kind, [])
    owner.items.append(1)
    assert (owner.items, other.items) == ([1], [])
    del owner.items
    assert owner.items == []
