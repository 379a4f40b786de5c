from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashhead_edge.errors import OptionError
from flashhead_edge.stopping import StopStrings

SMALL = st.text("ab\n", max_size=3)


def passed_on(stop, pieces):
    stops, out = StopStrings(stop), []
    for piece in pieces:
        out.append(stops.push(piece))
        if stops.reached:
            return out, True
    out.append(stops.flush())
    return out, False


@given(stop=st.lists(SMALL.filter(bool), max_size=3), pieces=st.lists(SMALL, max_size=12))
def test_text_ends_where_the_first_stop_string_is_complete(stop, pieces):
    out, reached = passed_on(stop, pieces)
    text, given_so_far = "".join(out), ""
    assert not any(s in text for s in stop)
    for piece in pieces:
        given_so_far += piece
        found = [at for s in stop if (at := given_so_far.find(s)) >= 0]
        if found:
            assert reached
            assert text == given_so_far[: min(found)]
            return
    assert not reached
    assert text == "".join(pieces)


def test_only_what_may_begin_a_stop_string_is_held():
    assert passed_on(["User:"], ["Hi", " U", "s", "a. Us", "er", ": more"]) == (["Hi", " ", "", "Usa. ", "", ""], True)


def test_one_string_is_one_stop_string():
    assert passed_on("ab", ["xaby"]) == (["x"], True)


def test_empty_stop_string_is_refused():
    with pytest.raises(OptionError, match="empty"):
        StopStrings(["a", ""])
