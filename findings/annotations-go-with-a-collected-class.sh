#!/usr/bin/env bash
# The annotations of a function can raise NameError once the class that it was defined in has been collected.
#
# CPython 3.15.2. A function that was taken out of a class, such as a handler that a registry keeps, may outlive the
# class. Since 3.14 its annotations are evaluated when somebody asks for them, and names of the class's body are looked
# up in the namespace of the class. In 3.15 the collector clears that namespace together with the class. So
# inspect.signature() and typing.get_type_hints() work, or raise, depending on whether the collector has run. In 3.14.10
# the names stay, and 3.13 evaluates annotations at once.
#
# Seen with 3.15.2:
#     before a collection: {'size': <class 'int'>}
#     after it: NameError: name 'Size' is not defined
# and with 3.14.10, both times: {'size': <class 'int'>}
set -euo pipefail
tried=77
for python in python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    "$python" - <<'PROGRAM'
import gc
import sys


def registered():
    class Handlers:
        Size = int

        def resize(size: Size):
            pass

    return Handlers.resize


def asked(function):
    try:
        return str(function.__annotations__)
    except NameError as error:
        return f"NameError: {error}"


gc.disable()
first = registered()
before = asked(first)
second = registered()  # whoever has asked once gets what was found then
gc.collect()
after = asked(second)
print(sys.version.split()[0])
print(f"before a collection: {before}")
print(f"after it: {after}")
fails = after == "NameError: name 'Size' is not defined"
sys.exit(before != "{'size': <class 'int'>}" or fails != (sys.version_info >= (3, 15)))
PROGRAM
done
exit "$tried"
