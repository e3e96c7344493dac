#!/usr/bin/env bash
# pandas makes a column of the keys of a frozendict, and writes one in a cell as an empty object.
#
# pandas 3.1.1, CPython 3.15.2. frozendict is a built-in type since 3.15. It is a Mapping, but no subclass of dict, and
# pandas asks for either the one or the other, by the function. DataFrame takes it for a list of its keys, isin for no
# condition at all, and to_json writes a cell that holds one as {}. None of them complains. Other functions refuse it
# (fillna, round) or work (rename, replace, astype, concat, Series). Seen, the same call with a dict and a frozendict:
#     DataFrame: {'a': [1, 2]} and {0: ['a']}
#     isin: [True, False] and [False, False]
#     to_json: {"0":{"a":1}} and {"0":{}}
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/tables.py" <<'PROGRAM'
import sys

import pandas

CALLS = {
    "DataFrame": lambda kind: pandas.DataFrame(kind(a=[1, 2])).to_dict("list"),
    "isin": lambda kind: pandas.DataFrame({"a": [1, 2]}).isin(kind(a=[1]))["a"].tolist(),
    "to_json": lambda kind: pandas.Series([kind(a=1)]).to_json(),
}
seen = {name: (str(call(dict)), str(call(frozendict))) for name, call in CALLS.items()}
for name, (of_dict, of_frozendict) in seen.items():
    print(f"{name}: {of_dict} and {of_frozendict}")
expected = {
    "DataFrame": ("{'a': [1, 2]}", "{0: ['a']}"),
    "isin": ("[True, False]", "[False, False]"),
    "to_json": ('{"0":{"a":1}}', '{"0":{}}'),
}
sys.exit(seen != expected)
PROGRAM
python3.15 -c '' 2>/dev/null || exit 77
python3.15 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pandas==3.1.1 2>/dev/null || exit 77
"$folder/venv/bin/python" "$folder/tables.py"
