import pytest
from hypothesis import given
from hypothesis import strategies as st

from securekd_protocols.errors import MalformedMessage
from securekd_protocols.wire import Reader, Writer


@given(st.lists(st.binary(max_size=40), max_size=20), st.sets(st.integers(0, 99)), st.integers(0, 2**64 - 1))
def test_what_was_written_is_read(blobs, indices, number):
    data = Writer().blobs(blobs).indices(indices).integer(number, 8).finish()
    reader = Reader(data, "test")
    assert reader.blobs(20, 40) == tuple(blobs)
    assert reader.indices(100) == tuple(sorted(indices))
    assert reader.integer(8) == number
    reader.finish()


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=5), st.data())
def test_truncation_and_trailing_bytes_are_refused(blobs, data):
    whole = Writer().blobs(blobs).finish()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(MalformedMessage):
        Reader(whole[:cut], "test").blobs(5, 9)
    reader = Reader(whole + b"\0", "test")
    reader.blobs(5, 9)
    with pytest.raises(MalformedMessage):
        reader.finish()


def test_sizes_are_refused_before_anything_is_read():
    with pytest.raises(MalformedMessage):
        Reader((2**32 - 1).to_bytes(4, "little"), "test").blob(2**32)
    with pytest.raises(MalformedMessage):
        Reader((60_000).to_bytes(2, "little"), "test").count(65_535, 1)
    with pytest.raises(MalformedMessage):
        Reader((10).to_bytes(4, "little") + bytes(10), "test").blob(9)


@pytest.mark.parametrize("indices", [[1, 1], [2, 1], [5]])
def test_index_sets_have_one_encoding(indices):
    data = len(indices).to_bytes(2, "little") + b"".join(i.to_bytes(2, "little") for i in indices)
    with pytest.raises(MalformedMessage):
        Reader(data, "test").indices(5)
