from hypothesis import given
from hypothesis import strategies as st

from include.extract_load.compact import last_of_each


@given(st.lists(st.tuples(st.binary(max_size=1), st.binary())))
def test_the_last_record_of_each_key_stays_in_the_order_of_its_coming(rows):
    with last_of_each() as last:
        for key, line in rows:
            last.add(key, line)
        found = list(last.lines())
    places = {key: n for n, (key, _) in enumerate(rows)}
    assert found == [rows[n][1] for n in sorted(places.values())]


def test_many_more_than_are_held_at_once():
    with last_of_each() as last:
        for n in range(10_000):
            last.add(str(n % 3000).encode(), str(n).encode())
        assert [int(line) for line in last.lines()] == list(range(7000, 10_000))
