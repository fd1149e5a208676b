"""Attributes and methods that a pipeline has only for users who come from diffusers."""

from __future__ import annotations

from typing import Any, NoReturn, SupportsIndex, TypeVar

from sdrt.common.messages import brief, refused, wrong_value
from sdrt.errors import RequestError
from sdrt.foreign.arguments import MOVING, PIPELINE_ARGUMENTS
from sdrt.foreign.checked import ExplainsAttributes, ExplainsClassAttributes, cannot_assign
from sdrt.foreign.pipeline import PIPELINE
from sdrt.foreign.word import no_argument

__all__ = ["DiffusersMethods", "refuse_dtype"]

M = TypeVar("M", bound="DiffusersMethods")


class DiffusersMethods(ExplainsAttributes, metaclass=ExplainsClassAttributes):
    """A base class of pipelines. Errors about names that they lack say what to write instead.

    This holds for attributes, also when they are assigned, and for the arguments of methods. A subclass needs
    `__slots__`, because an object with a dict takes every attribute.
    """

    __slots__ = ()
    _words, _shown = PIPELINE, "StableDiffusionPipeline"
    _arguments = PIPELINE_ARGUMENTS
    _filters: bool
    model: Any

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign an attribute that there is. Raises `UnknownAttributeError` for another name."""
        try:
            super().__setattr__(name, value)
        except AttributeError:
            raise cannot_assign(self, name, self._words) from None

    def __copy__(self: M) -> M:
        """Return a pipeline with its own scheduler. It shares the sessions."""
        made = object.__new__(type(self))
        for name in (one for base in type(self).__mro__ for one in getattr(base, "__slots__", ())):
            if name != "__weakref__" and hasattr(self, name):
                setattr(made, name, getattr(self, name))
        return made

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse pickles and deep copies: sessions of ONNX Runtime cannot be copied."""
        raise RequestError.advised(
            "a pipeline cannot be pickled or copied",
            "call StableDiffusionPipeline.from_pretrained in each process; threads may share a pipeline",
            joint="; ",
        )

    @property
    def safety_checker(self) -> bool | None:
        """True if the model's safety checker looks at images. None, as in diffusers, if there is none or it is off.

        None turns it off, and True turns it on again, unless the model was opened without it.
        """
        return True if self._filters and self.model.has_safety_checker else None

    @safety_checker.setter
    def safety_checker(self, value: bool | None) -> None:
        if value is not None and not isinstance(value, bool):
            raise wrong_value("safety_checker", value, "None to turn the model's own off, or True")
        if value and self.model.without_checker:
            raise RequestError.advised(
                f"{self.model.name} was opened without its safety checker",
                "open it with from_pretrained(…, safety_checker=True)",
                argument="safety_checker",
            )
        self._filters = bool(value)

    def set_progress_bar_config(self, *, disable: bool = True) -> None:
        """Accept that there is no progress bar. sdrt draws none in Python.

        Raises:
            RequestError: `disable` is not True.
        """
        if disable is not True:
            raise refused(
                "disable",
                f"is {brief(disable)}, but sdrt draws no progress bar in Python",
                "True; pipeline.stream yields the steps for a bar of your own",
            )


def refuse_dtype(*values: object) -> None:
    """Raise `UnknownArgumentError` if one of the arguments of `to` is a torch.dtype."""
    if any((type(value).__module__, type(value).__name__) == ("torch", "dtype") for value in values):
        raise no_argument("StableDiffusionPipeline.to", "dtype", (), MOVING)
