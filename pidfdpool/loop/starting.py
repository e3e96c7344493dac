"""Starts a template and turns what came of it into an event. Called by `pool`, without the lock: it takes a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidfdpool import events as ev
from pidfdpool.errors import TemplateError
from pidfdpool.template import client

if TYPE_CHECKING:
    from pidfdpool.template.client import HostEnd, Recipe


def try_start(recipe: Recipe) -> tuple[HostEnd | None, ev.Event, Exception | None]:
    """Return the host's end of a new template or None; what happened; and, where no other would do, the cause."""
    try:
        return client.start(recipe), ev.TemplateUp(), None
    except (TemplateError, FileNotFoundError, PermissionError, NotADirectoryError) as error:
        return None, ev.TemplateHopeless(f"the template cannot be started: {error}"), error
    except OSError as error:
        return None, ev.TemplateLost(f"it could not be started: {error}"), None
    except Exception as error:
        reason = f"the initializer or preload cannot be sent to workers: {error!r}"
        return None, ev.TemplateHopeless(reason), error
