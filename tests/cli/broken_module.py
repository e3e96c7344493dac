"""A module that cannot be imported, because what it needs is not there."""

import a_module_that_does_not_exist  # noqa: F401
