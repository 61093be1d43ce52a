from __future__ import annotations

import gc

import pytest

from include.memory import no_collections


def test_the_collector_is_off_within_and_on_again_after_it_and_after_an_error():
    with no_collections():
        assert not gc.isenabled()
        with no_collections():
            pass
        assert not gc.isenabled(), "the outer one still lasts"
    assert gc.isenabled()
    with pytest.raises(ValueError, match="within"), no_collections():
        raise ValueError("within")
    assert gc.isenabled()
