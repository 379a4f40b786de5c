"""Errors say what was found, what was expected and what to do."""

from __future__ import annotations

import inspect
import pickle

import pytest

from flashhead_edge import errors
from flashhead_edge.errors import (
    BodyExportError,
    BundleError,
    ExportError,
    FlashHeadError,
    OptionalDependencyError,
    OptionError,
    SourceError,
    UnsupportedModelError,
    WeightError,
    did_you_mean,
)

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


def test_the_message_has_all_parts_in_order() -> None:
    error = BundleError("It broke.", found="two", expected=3, hint="try again")
    assert str(error) == "It broke.\n  found: two\n  expected: 3\n  what to do: try again"
    assert (error.message, error.found, error.expected, error.hint) == ("It broke.", "two", 3, "try again")


def test_parts_that_are_not_given_are_left_out() -> None:
    assert str(OptionError("Bad.")) == "Bad."
    assert str(OptionError("Bad.", found=0)) == "Bad.\n  found: 0"
    assert str(OptionError("Bad.", hint="good")) == "Bad.\n  what to do: good"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_the_tree_has_one_root_and_documents_itself(kind: type[FlashHeadError]) -> None:
    assert issubclass(kind, FlashHeadError)
    assert kind.__doc__
    assert kind.exit_code == (2 if kind is OptionError else 1)


@pytest.mark.parametrize(
    ("kind", "parent"),
    [(UnsupportedModelError, SourceError), (WeightError, SourceError), (BodyExportError, ExportError)],
)
def test_the_branches(kind: type[FlashHeadError], parent: type[FlashHeadError]) -> None:
    assert issubclass(kind, parent)


def test_a_missing_package_names_package_purpose_and_extra() -> None:
    error = OptionalDependencyError("onnx", "export", "Exporting a model")
    assert isinstance(error, ImportError)
    assert str(error).startswith("Exporting a model needs the package 'onnx', which is not installed.")
    assert error.hint == "pip install 'flashhead-edge[export]'"
    assert (error.package, error.extra) == ("onnx", "export")


def test_errors_travel_between_processes() -> None:
    """Builds and exports run parts of themselves in other processes."""
    error = pickle.loads(pickle.dumps(OptionError("Bad.", found=0, hint="good")))
    assert str(error) == "Bad.\n  found: 0\n  what to do: good"


def test_close_names_are_offered() -> None:
    known = ["llama", "gemma2", "gemma3_text", "qwen3"]
    assert did_you_mean("gema2", known).startswith("did you mean 'gemma2'")
    assert did_you_mean("gema2", known).endswith("Known: gemma2, gemma3_text, llama, qwen3")
    assert did_you_mean("zzz", known) == "Known: gemma2, gemma3_text, llama, qwen3"


def test_long_lists_are_cut() -> None:
    assert did_you_mean("zzz", map(str, range(10, 40)), limit=3) == "Known: 10, 11, 12 and 27 more"
