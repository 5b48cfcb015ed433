"""Registries: what one adds is one new file, found by its name, with no edit anywhere else.

A registry stands for a folder (a package). The file `components/objectives/rotation.py` that holds
`@OBJECTIVES.register("rotation")` is found by the name `rotation`; nothing is imported before it is asked
for. Packages outside the tree join through the environment variable `VELVET_PLUGINS`: a colon-separated
list of importable packages that mirror the folders (`my_plugins/objectives/mine.py`).
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from components.base.errors import ConfigError

T = TypeVar("T")


class Registry:
    """Named parts of one kind, each in a file of its name below one package."""

    def __init__(self, kind: str, package: str) -> None:
        """`kind` is the word for messages ("objective"); `package` the dotted folder."""
        self.kind, self.package = kind, package
        self._parts: dict[str, Any] = {}

    def _packages(self) -> list[str]:
        tail = self.package.removeprefix("components.")
        plugins = [name for name in os.environ.get("VELVET_PLUGINS", "").split(":") if name]
        return [self.package, *(f"{plugin}.{tail}" for plugin in plugins)]

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make a class or function known under `name` (its file's name)."""

        def keep(part: T) -> T:
            self._parts[name] = part
            return part

        return keep

    def names(self) -> list[str]:
        """Every name that can be asked for, sorted, without importing any of them."""
        found: set[str] = set()
        for package in self._packages():
            if importlib.util.find_spec(package.rpartition(".")[0]) is None:
                continue
            spec = importlib.util.find_spec(package)
            for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else None):
                if spec is not None and not module.name.startswith("_"):
                    found.add(module.name)
        return sorted(found)

    def get(self, name: str) -> Any:
        """The part called `name`; an unknown name is a `ConfigError` that shows the nearest."""
        if name not in self._parts and name in self.names():
            for package in self._packages():
                spec = importlib.util.find_spec(package)
                if spec and importlib.util.find_spec(f"{package}.{name}"):
                    importlib.import_module(f"{package}.{name}")
        if name not in self._parts:
            names = self.names()
            near = difflib.get_close_matches(name, names, 1)
            raise ConfigError(
                f"there is no {self.kind} called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                rule=f"registry.{self.kind}",
                fix=f"use one of: {', '.join(names)}",
            )
        return self._parts[name]
