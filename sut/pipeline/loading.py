"""The classes of what a config names, and one line for whatever goes wrong where they are loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import backends.registry
import preprocess.registry
import sut.channels.registry
from backends.base import Backend
from plugins.cache import code_dir, private_dir
from preprocess.base import Preprocessor
from sut.channels.base import Channel
from sut.errors import InputError, SetupError, broken_import, one_line

T = TypeVar("T")


def load_backend(name: str) -> type[Backend]:
    """The class of a backend. Raises ``InputError``, ``SetupError`` or ``ModuleNotFoundError`` in one line."""
    return _loaded(backends.registry.load, "backend", name)


def load_preprocessor(name: str, options: Mapping[str, Any] = {}) -> type[Preprocessor]:
    """The class of a preprocessor that takes ``options``. Raises what ``load_backend`` does."""
    # Where one that is compiled when it is loaded keeps the code.
    if "NUMBA_CACHE_DIR" not in os.environ:
        os.environ["NUMBA_CACHE_DIR"] = str(_code_dir())
    return _loaded(partial(preprocess.registry.load, options=options), "preprocessor", name)


def load_channel(name: str) -> type[Channel]:
    """The class of a channel. Raises what ``load_backend`` does."""
    return _loaded(sut.channels.registry.load, "channel", name)


def _code_dir() -> Path:
    """Where Numba keeps code. Raises ``InputError`` where no home folder is known."""
    try:
        return code_dir("numba") or private_dir()
    except OSError:
        return private_dir()
    except ValueError as error:
        raise InputError(one_line(error)) from error


def _loaded(load: Callable[[str], type[T]], kind: str, name: str) -> type[T]:
    """The class of a plug-in; whatever another package's module raises becomes one line."""
    try:
        return load(name)
    except ValueError as error:
        raise InputError(one_line(error)) from error
    except ModuleNotFoundError:
        raise
    except Exception as error:
        text = f"{kind} {name} cannot be loaded: {type(error).__name__}: {one_line(error)}"
        raise SetupError(broken_import(error) or text) from error
