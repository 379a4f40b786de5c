"""Reads a TOML file of platforms, and refuses one that is damaged or gives a figure without its source.

Tables of a file::

    [documents]             # short names of sources
    [[jetpack]]             # releases: version, cuda, tensorrt, sources
    [shared.NAME]           # facts that several platforms have in common; they say `shared = "NAME"`
    [platforms.NAME]        # a platform: the fields of `Platform`
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flashhead_edge.errors import PlatformError, did_you_mean
from flashhead_edge.platforms.catalog import JetPack, Platform
from flashhead_edge.platforms.platform_fields import FIELDS, FIGURES, NAME, RELEASE, SETTINGS, TABLE, TEXT, TOP, Kind

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse_platforms(
    text: str, origin: str, jetpacks: Mapping[str, JetPack]
) -> tuple[dict[str, Platform], dict[str, JetPack]]:
    """Read a file.

    Args:
        text: The TOML text.
        origin: What errors call the file.
        jetpacks: Releases by version that earlier files described.

    Returns:
        Its platforms by name, and the releases with its own added.

    Raises:
        PlatformError: The text is no TOML, or something in it is unknown, missing or of the wrong kind.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlatformError(
            f"{origin} is not a TOML file.", found=str(error), expected="TOML", hint="mend the line that is named"
        ) from error
    _check(document, TOP, origin)
    documents, shared = document.get("documents", {}), document.get("shared", {})
    _check(documents, dict.fromkeys(documents, TEXT), f"documents of {origin}")
    for name, fields in shared.items():
        _check({name: fields}, {name: TABLE}, f"shared of {origin}")
    reader = _Reader(origin, documents, shared, dict(jetpacks))
    for release in document.get("jetpack", []):
        reader.add_release(release)
    platforms = {name: reader.platform(name, fields) for name, fields in document.get("platforms", {}).items()}
    return platforms, reader.jetpacks


@dataclass(frozen=True)
class _Reader:
    """Turns the tables of one file into platforms."""

    origin: str
    documents: Mapping[str, Any]
    shared: Mapping[str, Any]
    jetpacks: dict[str, JetPack]

    def add_release(self, fields: Mapping[str, Any]) -> None:
        """Add a release of JetPack."""
        where = f"JetPack {fields.get('version', 'without a version')} in {self.origin}"
        _check(fields, RELEASE, where, required=("version",))
        figures = [name for name in ("cuda", "tensorrt") if name in fields]
        sources = self._sources(fields.get("sources", {}), figures, where)
        version = fields["version"]
        if version in self.jetpacks:
            raise PlatformError(
                f"{where} is described a second time.",
                found=version,
                expected="a version that no file has described yet",
                hint="remove the table; platforms can name the release as it is",
            )
        self.jetpacks[version] = JetPack(version, fields.get("cuda"), fields.get("tensorrt"), sources)

    def platform(self, name: str, own: Any) -> Platform:
        """Make a platform of its table and the one that it shares."""
        where = f"the platform {name!r} in {self.origin}"
        if not NAME.fullmatch(name):
            raise PlatformError(
                f"{self.origin} has a platform with a name that is none.",
                found=name,
                expected="small letters and digits, joined by hyphens",
                hint="rename the table, for example [platforms.my-board-8gb]",
            )
        _check({name: own}, {name: TABLE}, self.origin)
        _check(own, FIELDS, where)
        fields = self._with_shared(own, where)
        _check(fields, FIELDS, where, required=("title", "family"))
        for table, known in SETTINGS.items():
            _check(fields.get(table, {}), known, f"{table} of {where}")
        sources = self._sources(fields.get("sources", {}), [key for key in FIGURES if key in fields], where)
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        values["jetpacks"] = tuple(self._release(version, where) for version in fields.get("jetpacks", ()))
        return Platform(**{**values, "name": name, "sources": sources})

    def _with_shared(self, own: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The table's fields over the shared ones; tables in them are merged too."""
        name = own.get("shared")
        if name is None:
            return dict(own)
        if name not in self.shared:
            raise PlatformError(
                f"{_start(where)} shares facts that are not there.",
                found=name,
                expected=f"a table [shared.{name}] in the same file",
                hint=did_you_mean(str(name), self.shared),
            )
        fields = dict(self.shared[name])
        for key, value in own.items():
            both_tables = isinstance(value, dict) and isinstance(fields.get(key), dict)
            fields[key] = {**fields[key], **value} if both_tables else value
        return {key: value for key, value in fields.items() if key != "shared"}

    def _sources(self, given: Mapping[str, Any], figures: list[str], where: str) -> dict[str, str]:
        """The sources in full; every figure has one and nothing else has."""
        _check(given, dict.fromkeys(figures, TEXT), f"sources of {where}")
        for figure in figures:
            if figure not in given:
                raise PlatformError(
                    f"{_start(where)} does not say where {figure} is from.",
                    found="no source",
                    expected=f'sources = {{ {figure} = "an address, a document or a measurement" }}',
                    hint=f"add the source, or leave {figure} out: what is unknown stays unknown",
                )
        return {figure: self._document(given[figure], where) for figure in figures}

    def _document(self, source: str, where: str) -> str:
        """A source that is one word is a short name; others stand for themselves."""
        if source in self.documents:
            return str(self.documents[source])
        if " " not in source and "://" not in source:
            raise PlatformError(
                f"{_start(where)} names a source that is not there.",
                found=source,
                expected=f"an address, a title of several words, or {source!r} in [documents]",
                hint=did_you_mean(source, self.documents),
            )
        return source

    def _release(self, version: str, where: str) -> JetPack:
        """The release of a version."""
        if version not in self.jetpacks:
            raise PlatformError(
                f"{_start(where)} names a JetPack that is not described.",
                found=version,
                expected="a version that a [[jetpack]] table describes",
                hint=did_you_mean(version, self.jetpacks),
            )
        return self.jetpacks[version]


def _check(fields: Mapping[str, Any], known: Mapping[str, Kind], where: str, *, required: tuple[str, ...] = ()) -> None:
    """Refuse fields that are missing, unknown or of the wrong kind."""
    for name in required:
        if name not in fields:
            raise PlatformError(
                f"{_start(where)} has no {name}.", found=", ".join(fields), expected=name, hint="add it"
            )
    for name, value in fields.items():
        if name not in known:
            raise PlatformError(
                f"{_start(where)} has a field that is none.",
                found=name,
                expected="a field of the catalogue; a source only for a figure that is given",
                hint=did_you_mean(name, known, limit=30),
            )
        if not known[name].accepts(value):
            raise PlatformError(
                f"{_start(where)} has the wrong kind of {name}.",
                found=repr(value),
                expected=known[name].expected,
                hint=f"mend {name}, or leave it out where it is unknown",
            )


def _start(where: str) -> str:
    """The words at the start of a sentence."""
    return (
        where[0].upper() + where[1:]
        if where.startswith(("the ", "sources ", "export ", "build ", "documents ", "shared "))
        else where
    )
