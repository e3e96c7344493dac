"""Metrics of pools and swarms: for Prometheus with prometheus-client, and for OpenTelemetry.

    from pidfdpool.metrics import PrometheusCollector

    PrometheusCollector(pool)

Each name loads the library that it is for. docs/metrics.md lists what is measured.
"""

from __future__ import annotations

TYPE_CHECKING = bool()  # noqa: UP018  as in the package itself
if TYPE_CHECKING:
    from pidfdpool.integrations.metrics.opentelemetry import OpenTelemetryInstruments, OpenTelemetrySwarmInstruments
    from pidfdpool.integrations.metrics.prometheus import PrometheusCollector, PrometheusSwarmCollector

__all__ = [
    "OpenTelemetryInstruments",
    "OpenTelemetrySwarmInstruments",
    "PrometheusCollector",
    "PrometheusSwarmCollector",
]

# The room's file, which is named as the extra; the library's module; and what to install.
_OPENTELEMETRY = ("opentelemetry", "opentelemetry.metrics", "opentelemetry-api 1.30")
_PROMETHEUS = ("prometheus", "prometheus_client", "prometheus-client 0.20")
_HOME = {
    "OpenTelemetryInstruments": _OPENTELEMETRY,
    "OpenTelemetrySwarmInstruments": _OPENTELEMETRY,
    "PrometheusCollector": _PROMETHEUS,
    "PrometheusSwarmCollector": _PROMETHEUS,
}


def __getattr__(name: str) -> object:
    """Load a class with the library that it is for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file, library, wanted = _HOME[name]
    try:
        __import__(library)
    except ImportError as error:
        raise ImportError(
            f"pidfdpool.metrics.{name} needs {wanted} or newer ({error}): pip install 'pidfdpool[{file}]'",
            name=error.name,
        ) from error
    module = __import__(f"pidfdpool.integrations.metrics.{file}", fromlist=(name,))
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    """Name what can be imported, loaded or not."""
    return sorted({*globals(), *__all__})
