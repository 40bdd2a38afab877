"""Who is let in, and the links."""

import pytest

from errata.page import serve as module
from errata.page.serve import ADMIN, ALONE, Link, check_host, make_links, serve
from errata.page.store import NewItem


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "edits.example", "::", ""])
def test_another_host_wants_links(host):
    with pytest.raises(ValueError, match="--annotators"):
        check_host(host, [])
    check_host(host, ["ada"])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_none(host):
    check_host(host, [])


def test_admin_is_no_annotator():
    with pytest.raises(ValueError, match="another name"):
        check_host("localhost", [ADMIN])


def test_links_are_shown_once(store):
    ada, admin = make_links(store, ["ada"])
    assert store.annotator_of(ada.token).name == "ada"
    assert store.annotator_of(admin.token).admin
    assert [link.token for link in make_links(store, ["ada"])] == [None, None]
    renewed, _ = make_links(store, ["ada"], new=True)
    assert store.annotator_of(ada.token) is None
    assert store.annotator_of(renewed.token).name == "ada"
    # A token is behind the #, which no browser sends.
    assert ada.url("0.0.0.0", 80) == f"http://localhost:80/#token={ada.token}"
    assert Link(ADMIN, "t").url("::1", 1) == "http://[::1]:1/admin#token=t"


def test_without_annotators_there_is_one_without_a_link(store):
    assert make_links(store, []) == []
    assert [one.name for one in store.annotators()] == [ALONE]


def test_serve_listens_where_it_was_told_and_keeps_no_log_of_requests(store, monkeypatch):
    asked, told = [], []
    monkeypatch.setattr(module.uvicorn, "run", lambda app, **settings: asked.append(settings))
    make_links(store, [])

    def items():
        yield NewItem(id="a", prompt="", response="x")
        raise ValueError("row 2 is bad")

    serve(store, host="127.0.0.1", port=1, items=items(), told=told.append)
    for _ in range(200):
        if told:
            break
        __import__("time").sleep(0.01)
    assert asked[0]["host"] == "127.0.0.1"
    assert asked[0]["access_log"] is False
    assert told == ["import stopped: row 2 is bad"]
    with pytest.raises(ValueError, match="--annotators"):
        serve(store, host="0.0.0.0", port=1)
