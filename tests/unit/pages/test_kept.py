"""Of values that are made when they are asked for, the last few are kept."""

from quadrat.pages.kept import Kept


def test_the_least_recently_used_value_goes():
    made, kept = [], Kept(2)

    def get(key):
        return kept.get(key, lambda: made.append(key) or key)

    assert [get(key) for key in "abacab"] == list("abacab")
    assert made == ["a", "b", "c", "b"]
