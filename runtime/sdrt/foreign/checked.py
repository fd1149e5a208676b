"""Errors that explain a wrong call or a wrong attribute: decorators for functions, and a base for classes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, ParamSpec, TypeVar

from sdrt.common.frames import forgets_locals
from sdrt.errors import UnknownArgumentError, UnknownAttributeError
from sdrt.foreign.word import Word, find, no_argument, no_attribute

__all__ = [
    "ExplainsAttributes",
    "ExplainsClassAttributes",
    "cannot_assign",
    "explains_arguments",
    "explains_assignment",
]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def explains_arguments(name: str, words: Sequence[Word]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a method's errors about its arguments say what to write instead. `name` is the method's name in them.

    An argument of `words` with a harmless value is left out of the call.
    """

    def explained(method: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(method)

        # The outermost function of a call, whose errors must not keep the object.
        @forgets_locals
        @functools.wraps(method)
        def call(*values: P.args, **named: P.kwargs) -> R:
            known = signature.parameters
            harmless = {
                one for one, value in named.items() if one not in known and _is_harmless(one, value, words)
            }
            kept: Any = {one: value for one, value in named.items() if one not in harmless}
            try:
                signature.bind(*values, **kept)
            except TypeError as error:
                raise _wrong_call(name, signature, values, kept, words, error) from None
            return method(*values, **kept)

        return call

    return explained


def explains_construction(name: str, words: Sequence[Word]) -> Callable[[C], C]:
    """Make a class's errors about the arguments of its construction say what to write instead."""

    def explained(kind: C) -> C:
        kind.__init__ = explains_arguments(name, words)(kind.__init__)  # type: ignore[misc]
        return kind

    return explained


def _is_harmless(name: str, value: object, words: Sequence[Word]) -> bool:
    word = find(name, words)
    return word is not None and word.takes(value)


def _wrong_call(
    name: str,
    signature: inspect.Signature,
    values: Sequence[object],
    named: Mapping[str, object],
    words: Sequence[Word],
    error: TypeError,
) -> UnknownArgumentError:
    """Return the error for a call that does not fit a method's signature, whose first parameter is the object."""
    _, *parameters = signature.parameters
    if unknown := [one for one in named if one not in parameters]:
        return no_argument(name, unknown[0], parameters, words)
    places = [one for one in parameters if signature.parameters[one].kind in _BY_POSITION]
    if len(values) - 1 > len(places):
        takes = f"only {', '.join(places)}" if places else "no arguments"
        return UnknownArgumentError.advised(
            f"{name} takes {takes} by position, got {len(values) - 1}", "give the others by name"
        )
    # An argument is missing or given twice. Python's message says which.
    remedy = "give it" if "missing" in str(error) else "give each argument once"
    return UnknownArgumentError.advised(f"{name}: {error}", remedy, joint="; ")


def _explain_methods(kind: type, words: Mapping[str, Sequence[Word]]) -> None:
    """Make the errors about the arguments of every public method, and of those in `words`, say what to write."""
    for name, one in list(vars(kind).items()):
        method = one.__func__ if isinstance(one, classmethod) else one
        if not isinstance(method, FunctionType) or (name.startswith("_") and name not in words):
            continue
        owner = getattr(kind, "_shown", kind.__name__)
        shown = owner if name == "__init__" else f"{owner}.{name}"
        explained = explains_arguments(shown, words.get(name, ()))(method)
        setattr(kind, name, classmethod(explained) if isinstance(one, classmethod) else explained)


class ExplainsClassAttributes(type):
    """The metaclass of a class whose missing attributes are errors that say what to write instead."""

    _words: Sequence[Word]

    if not TYPE_CHECKING:  # type checkers would take every attribute for one that exists

        def __getattr__(cls, name: str) -> NoReturn:
            raise _missing(cls, name, cls._words)


class ExplainsAttributes:
    """A base for classes whose missing attributes are errors that say what to write instead.

    The errors are also `AttributeError`s, so `hasattr`, `getattr` with a default, copies and pickles work as usual.
    """

    __slots__ = ()
    _words: ClassVar[Sequence[Word]] = ()
    _arguments: ClassVar[Mapping[str, Sequence[Word]] | None] = None
    """The words for the arguments of each method, by its name. None leaves the methods as they are."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls._arguments is not None:
            _explain_methods(cls, cls._arguments)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if any(name in vars(base) for base in type(self).__mro__):
                # The attribute exists, so its own code raised an AttributeError. Another call raises it again.
                return object.__getattribute__(self, name)
            raise _missing(type(self), name, type(self)._words)


def explains_assignment(kind: C) -> C:
    """Make the errors of a frozen dataclass about assigned attributes say what to write instead."""

    def refuse(self: object, name: str, value: object) -> NoReturn:
        fields = getattr(kind, "__dataclass_fields__", ())
        if name in fields or hasattr(type(self), name):
            raise UnknownAttributeError.advised(
                f"{kind.__name__}.{name} cannot be assigned", "make another with from_config", argument=name
            )
        raise _missing(type(self), name, getattr(kind, "_words", ()))

    kind.__setattr__ = refuse  # type: ignore[method-assign, assignment]
    return kind


def cannot_assign(owner: object, name: str, words: Sequence[Word]) -> AttributeError:
    """Return the error for assigning the attribute `name`, which `owner` does not have or does not let change."""
    kind = type(owner)
    if any(name in vars(base) for base in kind.__mro__):
        return UnknownAttributeError.advised(
            f"{kind.__name__}.{name} cannot be assigned", "call it, or make another pipeline", argument=name
        )
    return _missing(kind, name, words)


def _missing(owner: type, name: str, words: Sequence[Word]) -> AttributeError:
    # Python and tools ask for such names all the time, and nobody mistypes them.
    if name.startswith("__"):
        return AttributeError(f"{owner.__name__} has no {name}")
    names = (*type.__dir__(owner), *getattr(owner, "__dataclass_fields__", ()))
    public = [one for one in names if not one.startswith("_")]
    return no_attribute(owner.__name__, name, public, words)
