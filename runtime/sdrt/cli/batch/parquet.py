"""Rows of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sdrt.common.extras import install_command, missing_modules
from sdrt.errors import ProviderError, RequestError
from sdrt.request.setting import Setting

__all__ = ["rows_of"]

_ROWS = 1024


def rows_of(name: str, settings: Sequence[Setting]) -> Iterator[dict[str, Any]]:
    """The rows of a file as mappings, without their empty cells.

    pandas stores whole numbers as fractions where a column has empty cells: those are whole numbers again. A cell of
    an image may also be a structure with its bytes, as the datasets library writes it.

    Raises:
        ProviderError: pyarrow is not installed.
        RequestError: the file cannot be read, is no Parquet file, or has a column that is no setting.
    """
    if missing_modules("batch"):
        raise ProviderError.advised(f"{name} needs pyarrow, which is not installed", install_command("batch"))
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = {one for row in settings if row.kind is int for one in row.names}
    try:
        with Path(name).open("rb") as stream:
            table = pq.ParquetFile(stream)
            _check_columns(name, table.schema_arrow.names, settings)
            for batch in table.iter_batches(_ROWS):
                for row in batch.to_pylist():
                    yield {key: _value(key, one, whole) for key, one in row.items() if one is not None}
    except RequestError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        # ValueError is of texts that are not UTF-8, and OverflowError of times.
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"{name} cannot be read: {reason}", path=Path(name)) from error


def _check_columns(name: str, columns: Sequence[str], settings: Sequence[Setting]) -> None:
    known = {"id", *(one for row in settings for one in row.names)}
    if others := [repr(one) for one in columns if one.lower().replace("-", "_") not in known]:
        raise RequestError.advised(
            f"{name}: {', '.join(others)} {'is no setting' if len(others) == 1 else 'are no settings'}",
            f"leave out such columns, or call them one of id, {', '.join(row.key for row in settings)}",
            path=Path(name),
        )


def _value(key: str, value: Any, whole: set[str]) -> Any:
    if key in whole and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        return value["bytes"] if value["bytes"] is not None else value["path"]
    if isinstance(value, list):
        return [_value("", one, whole) for one in value]
    return value
