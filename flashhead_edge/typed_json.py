"""JSON documents whose schema is a dataclass: a key that is missing, unknown or of the wrong type is an error.

Only keys of fields whose default is None may be missing.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from typing import Any, TypeVar

from flashhead_edge.errors import FlashHeadError

_Record = TypeVar("_Record")


class JsonDocument:
    """A kind of JSON file.

    Args:
        name: What errors call it.
        schema_version: The only version that is read.
        error: What is raised.
        hint: What to do about a damaged or outdated one.
    """

    def __init__(self, name: str, schema_version: int, error: type[FlashHeadError], hint: str) -> None:
        self.name, self.schema_version, self.error, self.hint = name, schema_version, error, hint

    def read(self, record: type[_Record], text: str) -> _Record:
        """Read a document.

        Args:
            record: The dataclass that is its schema, with a field ``schema_version``.
            text: The file's text.

        Returns:
            The record.

        Raises:
            FlashHeadError: Of the kind ``error``: it is not JSON, of another version, or does not follow the schema.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and endless nesting
            raise self.error(f"{self.name} is not JSON.", found=str(error), hint=self.hint) from error
        if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
            raise self.error(f"{self.name} is not what it should be.", expected="an object with 'schema_version'")
        version = data["schema_version"]
        if version != self.schema_version:
            newer = version > self.schema_version
            raise self.error(
                f"{self.name} is of another schema version.",
                found=f"version {version}, made by {data.get('created_by', 'an unknown program')}",
                expected=f"version {self.schema_version}",
                hint="pip install --upgrade flashhead-edge" if newer else self.hint,
            )
        return self._record(record, data, "")

    def _record(self, record: type[_Record], data: Any, place: str) -> _Record:
        """Build a dataclass from JSON, checking every key and type."""
        if not isinstance(data, dict):
            raise self.error(f"{self.name}: {place or 'the document'} is not an object.", found=type(data).__name__)
        hints = typing.get_type_hints(record)
        fields = dataclasses.fields(record)  # type: ignore[arg-type]
        names = {item.name for item in fields}
        needed = {item.name for item in fields if item.default is not None}
        missing, unknown = sorted(needed - data.keys()), sorted(data.keys() - names)
        if missing or unknown:
            raise self.error(
                f"{self.name}: the keys of {place or 'the document'} are not those of schema version "
                f"{self.schema_version}.",
                found=", ".join([*(f"no {key!r}" for key in missing), *(f"unknown {key!r}" for key in unknown)]),
                hint=self.hint,
            )
        return record(**{name: self._value(hints[name], data[name], f"{place}{name}") for name in names & data.keys()})

    def _value(self, kind: Any, value: Any, place: str) -> Any:
        """Check one value against its annotation."""
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            if value is None:
                return None
            (kind,) = (part for part in arguments if part is not type(None))
            return self._value(kind, value, place)
        if dataclasses.is_dataclass(kind):
            return self._record(typing.cast("type[Any]", kind), value, f"{place}.")
        if origin in (list, tuple) and isinstance(value, list):  # a tuple of any length, of one type
            return origin(self._value(arguments[0], item, f"{place}[{i}]") for i, item in enumerate(value))
        if origin is dict and isinstance(value, dict):
            return {key: self._value(arguments[1], item, f"{place}.{key}") for key, item in value.items()}
        if origin is typing.Literal and value in arguments:
            return value
        if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._finite(value, place)
        if isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        raise self.error(
            f"{self.name}: {place} has the wrong type or value.",
            found=repr(value)[:80] if isinstance(value, str) else type(value).__name__,
            expected=getattr(kind, "__name__", str(kind)),
            hint=self.hint,
        )

    def _finite(self, value: float, place: str) -> float:
        """A number as float; JSON readers let NaN, infinity and whole numbers beyond any float pass."""
        if not -sys.float_info.max <= value <= sys.float_info.max:
            raise self.error(f"{self.name}: {place} is not a finite number.", hint=self.hint)
        return float(value)
