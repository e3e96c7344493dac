"""An option for the environment that has the libraries of all pages."""

from __future__ import annotations


def pytest_addoption(parser):
    parser.addoption("--all-libraries", action="store_true", help="fail if a library that a page needs is missing")
