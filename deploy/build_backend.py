"""Builds the project with setuptools, and sees to it first that JSROOT is among the pages' files (see jsroot.py).

A build backend as PEP 517 and PEP 660 describe it; pyproject.toml names it. Where JSROOT cannot be had, the build goes
on without it and says so.
"""

from pathlib import Path

import jsroot
from setuptools import build_meta
from setuptools.build_meta import (  # noqa: F401
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

CLONE = Path(__file__).resolve().parent.parent


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """A wheel with JSROOT in it."""
    jsroot.fetch_or_say(CLONE)
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """An installation in place, with JSROOT beside the other files of the pages."""
    jsroot.fetch_or_say(CLONE)
    return build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
