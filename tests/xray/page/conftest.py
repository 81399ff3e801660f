"""Chromium for the tests of pages."""

from browser import browser

__all__ = ["browser"]
