"""Line breaks become again what they were."""

from hypothesis import given
from hypothesis import strategies as st

from errata.page.breaks import breaks_of, plain, restore

TEXTS = st.text("ab \r\n", max_size=30)


@given(TEXTS)
def test_untouched_text_is_the_original_to_the_character(original):
    assert restore(original, plain(original)) == original


@given(TEXTS, TEXTS)
def test_only_line_breaks_are_restored(original, typed):
    assert plain(restore(original, plain(typed))) == plain(typed)


@given(TEXTS, TEXTS.filter(lambda text: "\r" in text))
def test_what_came_from_no_text_field_stays(original, typed):
    assert restore(original, typed) == typed


def test_each_line_keeps_its_own_and_new_ones_get_the_commonest():
    original = "a\r\nb\nc\r\nd"
    assert breaks_of(original) == "mixed"
    assert restore(original, "a\nb\nnew\nc\nd") == "a\r\nb\nnew\r\nc\r\nd"
    assert restore(original, "b\nc\nd") == "b\nc\r\nd"
    assert restore("a\r\nb", "a\nb\nc") == "a\r\nb\r\nc"
    assert restore("a\rb\r", "a\nx\n") == "a\rx\r"
    assert restore("one line", "two\nlines") == "two\nlines"
