"""The error tree: every error that users can meet derives from :class:`FlashHeadError`.

A message says what went wrong, what was found, what was expected and what to do about it.
The command line prints it without a traceback and exits with :attr:`FlashHeadError.exit_code`.
"""

from __future__ import annotations

from collections.abc import Iterable


class FlashHeadError(Exception):
    """Root of the tree; raised directly never, caught by anyone who wants them all.

    Args:
        message: One sentence that says what went wrong.
        found: What was there.
        expected: What should have been there.
        hint: What the reader can do now.
    """

    #: Exit status of the command line when this error ends it: 1 failed, 2 wrong use.
    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        found: object | None = None,
        expected: object | None = None,
        hint: str | None = None,
    ) -> None:
        self.message = message
        self.found = found
        self.expected = expected
        self.hint = hint
        parts = (("found", found), ("expected", expected), ("what to do", hint))
        super().__init__("\n".join([message, *(f"  {name}: {text}" for name, text in parts if text is not None)]))


class OptionError(FlashHeadError):
    """An argument or option is out of range or does not fit the others."""

    exit_code = 2


class SourceError(FlashHeadError):
    """The model to export cannot be read: missing, truncated or incomplete files."""


class UnsupportedModelError(SourceError):
    """The model was read, but its architecture is not one that we understand."""


class WeightError(SourceError):
    """The head's numbers are unusable (NaN, infinity, wrong shape)."""


class CalibrationError(FlashHeadError):
    """Calibration text or hidden states cannot be used."""


class ExportError(FlashHeadError):
    """Writing a bundle failed; nothing half-written is left behind."""


class BodyExportError(ExportError):
    """The decoder body could not be exported or does not match the model."""


class BundleError(FlashHeadError):
    """A bundle is missing, damaged, or of another schema version."""


class RuntimeUnavailableError(FlashHeadError):
    """A runtime or execution provider that was asked for cannot be used here."""


class EngineError(FlashHeadError):
    """A TensorRT engine cannot be built or kept, or one that was built cannot be used."""


class PlatformError(FlashHeadError):
    """A file of the platform catalogue is damaged or incomplete."""


class ProfileError(FlashHeadError):
    """A profile cannot be taken or read."""


class OptionalDependencyError(FlashHeadError, ImportError):
    """A package that an optional feature needs is not installed.

    Args:
        package: Import name of the missing package.
        extra: Extra of ``flashhead-edge`` that installs it.
        purpose: What needed it, as a noun phrase.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed.",
            hint=f"pip install 'flashhead-edge[{extra}]'",
        )


def did_you_mean(name: str, known: Iterable[str], *, limit: int = 20) -> str:
    """Say which known names are close to ``name`` and which exist.

    Args:
        name: What the user wrote.
        known: The names that would have been right.
        limit: How many known names to list before only counting the rest.

    Returns:
        A sentence such as ``did you mean 'gemma2'? Known: gemma2, llama``.
    """
    import difflib  # of no use until something goes wrong

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    listed = ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
    guess = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return f"{guess}Known: {listed}"
