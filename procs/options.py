"""A step's settings, checked against the step's own table of names and defaults before any work begins."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from orchestrator.errors import SettingsError


def options(settings: Mapping[str, Any], step: str, defaults: Mapping[str, Any]) -> SimpleNamespace:
    """The settings of ``step`` with the defaults filled in, as attributes.

    Args:
        settings: what the chain file says.
        step: the step's name, for the error's sentence.
        defaults: every known setting and its default, whose type the setting must have (None: any type; a float
            takes an int too).

    Raises:
        SettingsError: an unknown name (with the nearest known one) or a value of another type.
    """
    for name, value in settings.items():
        if name not in defaults:
            near = difflib.get_close_matches(str(name), list(defaults), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(sorted(defaults))})"
            raise SettingsError(f"the step {step} has no setting {name!r}{hint}: correct it in the chain file")
        wanted = type(defaults[name])
        fits = value is None or defaults[name] is None or isinstance(value, wanted)
        if wanted is float:
            fits = isinstance(value, (int, float))
        if wanted is not bool and isinstance(value, bool) and defaults[name] is not None:
            fits = False
        if not fits or (value is None and defaults[name] is not None):
            raise SettingsError(
                f"the setting {name!r} of the step {step} is {value!r}: write a {wanted.__name__} in the chain file"
            )
    return SimpleNamespace(**{**defaults, **settings})


def choice(value: str, known: tuple[str, ...], name: str, step: str) -> str:
    """``value`` if it is one of ``known``; else a SettingsError that lists them."""
    if value not in known:
        raise SettingsError(f"the setting {name!r} of the step {step} is {value!r}: choose one of {', '.join(known)}")
    return value
