"""How the host rebuilds what a worker wrote, whatever that runs, and whatever memory there is."""

from __future__ import annotations

import pytest

from pidfdpool import PayloadError, PayloadTooLarge
from pidfdpool.loop import outcomes
from pidfdpool.loop.outcomes import Outcome
from pidfdpool.scheduler.policy import Policy
from pidfdpool.serialization import payload
from pidfdpool.transport import framing


def raise_it(error):
    raise error


class Failing:
    """Raises this when it is rebuilt."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return raise_it, (self.error,)


def frame(kind, buffers):
    return framing.Frame(kind, 0, 0, 1, buffers)


def result(value):
    return frame(framing.RESULT, payload.dumps(value))


def error(value):
    return frame(framing.ERROR, payload.dump_error(value, None))


def test_a_result_in_whatever_form_it_came():
    (data,) = payload.dumps("value")
    for answer in ((1, 0, 0, data), result("value"), Outcome(result("value"))):
        assert outcomes.load(answer) == ("value", None)


def test_an_error_in_whatever_form_it_came():
    for answer in (error(KeyError("no")), Outcome(error(KeyError("no")))):
        value, raised = outcomes.load(answer)
        assert value is None
        assert (type(raised), raised.args) == (KeyError, ("no",))


def test_an_error_that_had_to_be_looked_at_is_the_one_that_is_told():
    outcome = Outcome(error(KeyError("no")))
    assert outcome.matches(Policy(1, retries=1, retry_on=LookupError))
    known = outcome.error
    assert outcomes.load(outcome) == (None, known)


@pytest.mark.parametrize(
    ("made", "options"),
    [
        (result("value"), {"retries": 1, "retry_on": KeyError}),
        (error(KeyError()), {}),
        (error(KeyError()), {"retries": 1, "retry_on": OSError}),
    ],
    ids=["a result", "no retries", "another error"],
)
def test_nothing_else_is_a_reason_to_try_again(made, options):
    assert not Outcome(made).matches(Policy(1, **options))


def test_a_class_whose_instances_cannot_be_told_is_no_reason_to_try_again():
    class Meta(type):
        def __instancecheck__(cls, _instance):
            raise ZeroDivisionError

    class Strange(Exception, metaclass=Meta):
        pass

    assert not outcomes.matches(KeyError(), Policy(1, retries=1, retry_on=Strange))


def test_the_buffers_are_let_go_of_before_the_outcome_is_told():
    for made in (result("value"), error(KeyError())):
        outcome = Outcome(made)
        assert made.buffers == []
        assert outcome.buffers
        outcomes.load(outcome)
        assert outcome.buffers == []
    plain = result("value")
    outcomes.load(plain)
    assert plain.buffers == []


@pytest.mark.parametrize("lean", [True, False])
@pytest.mark.parametrize("failure", [ZeroDivisionError("no"), SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_result_that_cannot_be_rebuilt_is_an_error_with_that_cause(failure, lean):
    (data,) = payload.dumps(Failing(failure))
    value, raised = outcomes.load((1, 0, 0, data) if lean else frame(framing.RESULT, [data]))
    assert value is None
    assert type(raised) is PayloadError
    assert type(raised.__cause__) is type(failure)
    with pytest.raises(PayloadError):
        outcomes.load_result([data])


def test_what_there_is_no_memory_for_is_told_with_its_size():
    missing = framing.MissingBuffers(3_000_000)
    for answer, what in (
        (frame(framing.RESULT, missing), "receive the result"),
        (frame(framing.ERROR, missing), "receive the exception"),
    ):
        raised = outcomes.load(answer)[1]
        assert type(raised) is PayloadTooLarge
        assert what in str(raised)
        assert "3 MB" in str(raised)
    (data,) = payload.dumps(Failing(MemoryError()))
    raised = outcomes.load(frame(framing.RESULT, [data]))[1]
    assert type(raised) is PayloadTooLarge
    assert "rebuild the result" in str(raised)
