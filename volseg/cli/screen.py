"""What all bars share: they appear with the first thing they tell, and leave no line where they never did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress


class Screen:
    """A context that holds a bar, which is started by whoever first moves it."""

    _bar: Progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A bar that was never shown would still end its line.
        if self._bar.live.is_started:
            self._bar.stop()
