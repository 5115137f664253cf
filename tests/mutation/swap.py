"""Puts a mutant in the place of a module that is imported already, in a process that is thrown away.

What was imported from the module stays what it is, so functions keep their identity and get other code;
values and, where a class itself was changed, classes are replaced wherever the old one is held by its name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

_NOTHING = object()


def swap(module: ModuleType, source: str, *, classes: bool) -> None:
    """Give a module the code of ``source``. ``classes``: also replace its classes as a whole."""
    fresh = ModuleType(module.__name__)
    fresh.__package__ = module.__package__
    exec(compile(source, f"<mutant of {module.__name__}>", "exec"), fresh.__dict__)
    for name, new in vars(fresh).items():
        old = vars(module).get(name, _NOTHING)
        if name.startswith("__") or old is new:
            continue
        if isinstance(new, FunctionType) and isinstance(old, FunctionType):
            _recode(old, new)
        elif isinstance(new, type) and new.__module__ == module.__name__ and not classes:
            _recode_class(old, new)
        elif isinstance(new, type) or old is _NOTHING or type(old) is not type(new) or old != new:
            _replace(module, name, old, new)


def _recode(old: FunctionType, new: FunctionType) -> None:
    old.__code__ = new.__code__
    old.__defaults__ = new.__defaults__
    old.__kwdefaults__ = new.__kwdefaults__


def _recode_class(old: Any, new: type) -> None:
    theirs = dict(_methods(new))
    for name, function in _methods(old):
        if name in theirs:
            _recode(function, theirs[name])


def _methods(cls: type) -> Iterator[tuple[str, FunctionType]]:
    for name, value in vars(cls).items():
        inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if isinstance(inner, FunctionType) and inner.__module__ == cls.__module__:
            yield name, inner


def _replace(module: ModuleType, name: str, old: object, new: object) -> None:
    setattr(module, name, new)
    for other in list(sys.modules.values()):
        if vars(other).get(name, _NOTHING) is old:
            setattr(other, name, new)
