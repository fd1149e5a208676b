"""Metadata of other programs in the labels of sdrt, and what cannot be made as they say."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Difference", "Translation"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something in metadata that sdrt cannot do as the metadata say."""

    label: str
    """The label, or the name of a group of labels."""
    value: str = ""
    option: str = ""
    """The setting with which a user says otherwise, so that the metadata do not count."""
    minor: bool = False
    """Whether the image is the same except in details, so that a notice suffices."""


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Metadata in the labels of sdrt."""

    texts: dict[str, str]
    differences: list[Difference] = field(default_factory=list)
    controlnets: list[str] = field(default_factory=list)
    """The names of the ControlNets."""

    def differs(self, label: str, value: str, option: str = "", *, minor: bool = False) -> None:
        """Note that `label` cannot be done. Only the first of several with the same name is kept."""
        if all(label != other.label for other in self.differences):
            self.differences.append(Difference(label=label, value=value, option=option, minor=minor))
