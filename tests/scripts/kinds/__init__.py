"""All kinds of scripts, by section of the page, each section in a file."""

from __future__ import annotations

from tests.scripts.kind import Kind
from tests.scripts.kinds import (
    annotated,
    classes,
    decorators,
    errors,
    functions,
    hooks,
    imports,
    libraries,
    names,
    operations,
    records,
    resources,
    services,
    setup,
    special_methods,
    starts,
    state,
    synchronization,
    text,
    values,
)

SECTIONS: dict[str, list[Kind]] = {
    "Functions": functions.KINDS,
    "Decorators": decorators.KINDS,
    "How tasks are submitted": operations.KINDS,
    "Classes": classes.KINDS,
    "Classes with special methods": special_methods.KINDS,
    "Classes with hooks": hooks.KINDS,
    "Records and enumerations": records.KINDS,
    "Types and names": names.KINDS,
    "Annotations": annotated.KINDS,
    "Errors": errors.KINDS,
    "Globals that last or change": state.KINDS,
    "What the top of a script sets up": setup.KINDS,
    "Imports": imports.KINDS,
    "Globals: locks and what belongs to threads": synchronization.KINDS,
    "Globals: files, connections and other resources": resources.KINDS,
    "Globals: values": values.KINDS,
    "Looked up by name": text.KINDS,
    "How the script is started": starts.KINDS,
    "Libraries: models and data": libraries.KINDS,
    "Libraries: applications and clients": services.KINDS,
}
