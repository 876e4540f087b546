"""Implementations by name: built-ins, and plug-ins that installed packages declare as entry points.

Built-ins are "module:attribute" strings where an import is costly. A plug-in's module is imported if its name is used.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from volseg.errors import ConfigError
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

T = TypeVar("T")


class Registry(Generic[T]):
    """The implementations of one kind, by name; iterates over the names, sorted."""

    def __init__(self, group: str, kind: str, builtins: Mapping[str, T | str]) -> None:
        """Name the entry points and the built-ins; nothing is imported yet.

        Args:
            group: entry-point group of the plug-ins, such as `volseg.networks`.
            kind: a noun for messages, such as `network`.
            builtins: name -> implementation, or where it is: "module:attribute".
        """
        self.group = group
        self.builtins = builtins
        self._kind = kind
        self._loaded: dict[str, T] = {}
        self._plugins: dict[str, list[metadata.EntryPoint]] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self.builtins, *self._entry_points()}))

    def __contains__(self, name: object) -> bool:
        return name in self.builtins or name in self._entry_points()

    def __getitem__(self, name: str) -> T:
        """Import the implementation of a name, once.

        Raises:
            ConfigError: an unknown name, one that is declared twice, or a plug-in that cannot be imported.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(self.check(name))
        return self._loaded[name]

    def check(self, name: str) -> str:
        """Return a name that has one implementation, without importing it; a validator of settings.

        Raises:
            ConfigError: an unknown name, or one that is declared twice.
        """
        if name not in self:
            hint = did_you_mean(name, self)
            raise ConfigError(
                f"there is no {self._kind} {name!r}{hint}; choose from {', '.join(self)}, or install the package that "
                f"provides it (entry point group {self.group})"
            )
        plugins = self._entry_points().get(name, [])
        owners = ["volseg"] * (name in self.builtins) + [_package(plugin) for plugin in plugins]
        if len(owners) > 1:
            raise ConfigError(
                f"{self._kind} {name!r} is declared by {' and by '.join(owners)}; rename the plug-in, or uninstall "
                f"{' or '.join(_package(plugin) for plugin in plugins)}"
            )
        return name

    def _load(self, name: str) -> T:
        if plugins := self._entry_points().get(name):
            try:
                return cast("T", plugins[0].load())
            except Exception as error:
                raise ConfigError(
                    f"{self._kind} {name!r} of package {_package(plugins[0])} cannot be imported "
                    f"({type(error).__name__}: {error}); repair or uninstall the package"
                ) from error
        builtin = self.builtins[name]
        if not isinstance(builtin, str):
            return builtin
        module, _, attribute = builtin.partition(":")
        return cast("T", getattr(import_module(module), attribute))

    def _entry_points(self) -> dict[str, list[metadata.EntryPoint]]:
        if self._plugins is None:
            plugins: dict[str, list[metadata.EntryPoint]] = {}
            for plugin in metadata.entry_points(group=self.group):
                plugins.setdefault(plugin.name, []).append(plugin)
            self._plugins = plugins
        return self._plugins


def _package(plugin: metadata.EntryPoint) -> str:
    return plugin.dist.name if plugin.dist else plugin.value


LOSSES: Registry[Callable[..., Any]] = Registry(
    "volseg.losses",
    "loss",
    {
        "balanced": "volseg.training.losses:balanced",
        "cross_entropy": "volseg.training.losses:cross_entropy",
        "dice": "volseg.training.losses:dice",
        "focal": "volseg.training.losses:focal",
        "mean_absolute": "volseg.training.losses:mean_absolute",
    },
)
"""Name -> function of output, targets and weights; see `volseg.training.losses.make_loss`."""

NORMALIZATIONS: Registry[Any] = Registry(
    "volseg.normalizations",
    "normalisation",
    {
        "fixed": "volseg.ops.normalize:FIXED",
        "section": "volseg.ops.normalize:SECTION",
        "volume": "volseg.ops.normalize:VOLUME",
    },
)
"""Name -> `volseg.ops.normalize.NormalizationMode`."""
