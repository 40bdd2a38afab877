"""The page's requests: what they answer, and what they refuse."""

import json
import logging
import re

import pytest
from fastapi.testclient import TestClient

from errata.page.app import HEADERS as SAFE
from errata.page.app import create_app
from errata.page.store import NewItem, Store

from .conftest import HEADERS

HOSTILE = "<script>hurt=1</script><img src=x onerror=hurt=2>![x](http://evil/x.png)\u202eevil\u202c\x07"


def save(client, task, base, text, /, **more):
    body = {"base": base, "save_id": f"save-{base}-{text}"[:60].ljust(8, "-"), "kind": "draft", "text": text}
    body |= {"guideline": 0} | more
    return client.post(f"/api/tasks/{task}/revisions", json=body)


def test_from_item_to_submitted_edit(three, client_of):
    three.set_guideline("Be *brief*.")
    ada = client_of("ada")
    me = ada.get("/api/me").json()
    assert (me["name"], me["admin"], me["guideline"]["version"]) == ("ada", False, 1)
    assert me["progress"] == {"done": 0, "left": 2, "pace_seconds": None, "left_seconds": None}
    task = ada.post("/api/next", json={}).json()["task"]
    shown = ada.get(f"/api/tasks/{task}").json()
    assert (shown["prompt"], shown["response"], shown["head"], shown["breaks"]) == (
        "Say it.",
        "The red lamp.",
        None,
        "lf",
    )
    answer = save(ada, task, 0, "The dark red lamp.", seconds=9.5, keystrokes=5, reasons=["missing"]).json()
    assert answer["seq"] == 1
    assert answer["edits"] == [["keep", "The", "The"], ["insert", "", " dark"], ["keep", " red lamp.", " red lamp."]]
    assert answer["meter"] == {"added": 1, "removed": 0, "share": 0.2}
    assert save(ada, task, 1, "The dark red lamp.", kind="submit", outcome="edited", seconds=10).json()["seq"] == 2
    after = ada.get(f"/api/tasks/{task}").json()
    assert (after["outcome"], after["head"]["text"]) == ("edited", "The dark red lamp.")
    assert ada.get("/api/tasks").json() == [[task, "edited"]]
    progress = ada.get("/api/me").json()["progress"]
    assert progress == {"done": 1, "left": 1, "pace_seconds": 10.0, "left_seconds": 10.0}


def test_a_conflict_shows_the_other_text(three, client_of):
    ada = client_of("ada")
    task = ada.post("/api/next", json={}).json()["task"]
    assert save(ada, task, 0, "one tab").status_code == 200
    refused = save(ada, task, 0, "another tab")
    assert refused.status_code == 409
    assert refused.json()["head"]["text"] == "one tab"


TEXTS = [
    "👩🏽‍💻 é e\u0301",
    "שלום \u202eevil\u202c عربي",
    "```\n\tcode  \n```\n",
    "trailing   \n\n",
    "",
    " ",
    "\u2028\x0b\x00",
    HOSTILE,
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_to_the_character(three, client_of, text):
    ada = client_of("ada")
    task = ada.post("/api/next", json={}).json()["task"]
    assert save(ada, task, 0, text).status_code == 200
    assert ada.get(f"/api/tasks/{task}").json()["head"]["text"] == text
    assert three.work(1, task).head.text == text


def test_half_a_character_is_refused_in_words(three, client_of):
    ada = client_of("ada")
    task = ada.post("/api/next", json={}).json()["task"]
    body = b'{"base": 0, "save_id": "12345678", "kind": "draft", "guideline": 0, "text": "\\ud83d"}'
    refused = ada.post(f"/api/tasks/{task}/revisions", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422
    assert "half of a character" in refused.json()["detail"]


@pytest.mark.parametrize(
    "more",
    [
        {"kind": "delete"},
        {"base": -1},
        {"seconds": -1},
        {"save_id": "short"},
        {"text": None},
        {"offset": 3},
        {"kind": "submit", "outcome": "great"},
        {"kind": "submit", "outcome": "good"},
        {"guideline": 7},
        {"base": 10**30},
    ],
)
def test_what_a_revision_may_say(three, client_of, more):
    ada = client_of("ada")
    task = ada.post("/api/next", json={}).json()["task"]
    refused = save(ada, task, 0, "x", **more)
    assert refused.status_code == 422
    assert refused.json()["detail"]


@pytest.mark.parametrize("task", ["0", "99", "2147483648", "9" * 30])
def test_a_task_that_is_not_there_is_not_found(three, client_of, task):
    ada = client_of("ada")
    assert ada.get(f"/api/tasks/{task}").status_code == save(ada, task, 0, "x").status_code == 404


def test_the_guideline_in_view_is_the_one_that_is_named(three, client_of):
    three.set_guideline("be brief")
    ada = client_of("ada")
    task = ada.post("/api/next", json={}).json()["task"]
    three.set_guideline("be kind")
    assert save(ada, task, 0, "x", guideline=1).json()["guideline"] == 2  # so that the page can show it
    assert three.work(1, task).head.guideline == 1


def test_the_edits_are_kept_as_they_were_shown(three, client_of, monkeypatch):
    ada = client_of("ada")
    task = ada.post("/api/next", json={}).json()["task"]
    shown = save(ada, task, 0, "The dark red lamp.").json()
    monkeypatch.setattr("errata.page.show.diff", None)  # no text is compared twice
    again = ada.get(f"/api/tasks/{task}").json()
    assert (again["edits"], again["meter"]) == (shown["edits"], shown["meter"])
    assert len(again["edits"]) == 3


# Who may do what.


def test_nothing_is_told_to_nobody(three, client_of):
    ada, nobody = client_of("ada"), client_of()
    task = ada.post("/api/next", json={}).json()["task"]
    asked = [nobody.get(path) for path in ("/api/me", "/api/tasks", f"/api/tasks/{task}", "/api/overview")]
    asked += [nobody.post("/api/next", json={}), save(nobody, task, 0, "x")]
    assert {answer.status_code for answer in asked} == {401}
    assert nobody.post("/api/session", json={"token": "1.guess"}).status_code == 401
    assert all("lamp" not in answer.text for answer in asked)


def test_annotators_are_blind_to_each_other(three, client_of):
    three.set_overlap(2)
    ada, ben = client_of("ada"), client_of("ben")
    task = ada.post("/api/next", json={}).json()["task"]
    save(ada, task, 0, "ada's words")
    mine = ben.post("/api/next", json={}).json()["task"]
    assert ben.get(f"/api/tasks/{task}").status_code == save(ben, task, 1, "x").status_code == 404
    assert "ada" not in ben.get(f"/api/tasks/{mine}").text + ben.get("/api/me").text + ben.get("/api/tasks").text
    assert ben.get("/api/overview").status_code == 403


def test_the_admin_sees_and_does_not_edit(three, client_of):
    admin = client_of("admin", admin=True)
    assert admin.get("/api/overview").status_code == 200
    assert admin.post("/api/next", json={}).status_code == 403
    assert admin.get("/api/tasks/1").status_code == 403


def test_the_session_is_a_cookie_that_no_script_reads(three, client_of):
    token = three.add_annotator("ada", new_token=True)
    answer = client_of().post("/api/session", json={"token": token})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert token not in answer.text


def test_two_pages_on_one_machine_keep_their_own_sessions(three, client_of, tmp_path):
    ada = client_of("ada")
    other = Store(f"sqlite:///{tmp_path / 'other.db'}")
    with TestClient(create_app(other), base_url="http://localhost:8766", headers=HEADERS) as client:
        assert client.post("/api/session", json={"token": other.add_annotator("ada")}).status_code == 200
        ada.cookies.update(client.cookies)
    assert ada.get("/api/me").status_code == 200
    assert other.name != three.name
    other.close()


def test_without_links_a_token_is_nobodys_cookie(three, client_of):
    body = json.dumps({"token": "é\r\nSet-Cookie: x=1"}).encode()
    answer = client_of(open_to="ada").post("/api/session", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


def test_an_old_link_ends_when_a_new_one_is_made(three, client_of):
    ada = client_of("ada")
    three.add_annotator("ada", new_token=True)
    assert ada.get("/api/me").status_code == 401


def test_without_links_only_this_machine_is_answered(three, client_of):
    alone = client_of(open_to="ada")
    assert alone.get("/api/me").json()["admin"] is True
    for host, status in {
        "localhost:1": 200,
        "127.0.0.1": 200,
        "[::1]:80": 200,
        "evil.example": 400,
        "": 400,
        "[": 400,
    }.items():
        assert alone.get("/api/me", headers={"Host": host}).status_code == status
    assert client_of("ben").get("/api/me", headers={"Host": "edits.example"}).status_code == 200


# Other sites.


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8765"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:9"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"X-Errata": ""}, 403),
    ],
)
def test_another_site_cannot_write(three, client_of, headers, status):
    assert client_of("ada").post("/api/next", json={}, headers=headers).status_code == status


def test_a_form_of_another_site_is_no_request(three, client_of):
    ada = client_of("ada")
    body = json.dumps({"new": True}).encode()
    assert ada.post("/api/next", content=body, headers={"Content-Type": "text/plain"}).status_code == 422


@pytest.mark.parametrize("path", ["/", "/admin", "/api/me", "/static/editor.js", "/static/none", "/nowhere"])
def test_every_answer_has_the_headers(three, client_of, path):
    answer = client_of().get(path)
    for name, value in SAFE.items():
        assert answer.headers.get_list(name) == [value]
    assert "'unsafe" not in SAFE["Content-Security-Policy"]


def test_refusals_have_the_headers_too(three, client_of):
    answer = client_of().post("/api/next", json={}, headers={"Origin": "http://evil.example"})
    assert answer.headers["content-security-policy"] == SAFE["Content-Security-Policy"]


@pytest.mark.parametrize("stream", [False, True])
def test_bodies_have_a_limit(three, client_of, stream):
    ada = client_of("ada", body_limit=2000)
    task = ada.post("/api/next", json={}).json()["task"]
    body = json.dumps({"base": 0, "save_id": "12345678", "kind": "draft", "text": "x" * 3000, "guideline": 0}).encode()
    sent = iter([body[:1500], body[1500:]]) if stream else body
    headers = {"Content-Type": "application/json"}
    refused = ada.post(f"/api/tasks/{task}/revisions", content=sent, headers=headers)
    assert refused.status_code == 413
    assert save(ada, task, 0, "x" * 1000).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/store.py"],
)
def test_no_path_reaches_the_file_system(three, client_of, path):
    assert client_of().get(path).status_code == 404


def test_hostile_text_is_only_ever_json(store, client_of):
    store.add_items([NewItem(id=HOSTILE, prompt=HOSTILE, response=HOSTILE, reference=HOSTILE)])
    ada = client_of("ada")
    task = ada.post("/api/next", json={}).json()["task"]
    answer = ada.get(f"/api/tasks/{task}")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.json()["response"] == HOSTILE


def test_the_pages_hold_no_script_or_style_of_their_own(three, client_of):
    for path in ("/", "/admin"):
        html = client_of().get(path).text
        assert html.count("<script") == html.count('<script type="module" src="/static/') == 1
        assert "style=" not in html
        assert "<style" not in html
        assert not re.search(r"<[^>]* on\w+\s*=", html)  # no handler
        assert "//" not in html  # nothing from elsewhere


def test_tokens_are_in_no_log(three, client_of, caplog):
    caplog.set_level(logging.DEBUG)
    token = three.add_annotator("ada", new_token=True)
    client = client_of()
    client.post("/api/session", json={"token": token})
    client.post("/api/session", json={"token": token, "x": 1})
    client.get("/api/me")
    assert token.partition(".")[2] not in caplog.text


def test_the_documentation_of_the_api_is_off(three):
    paths = {getattr(route, "path", "") for route in create_app(three, open_to="ada").routes}
    assert not {"/docs", "/redoc", "/openapi.json"} & paths


def test_a_full_disk_is_said_and_a_save_that_follows_is_kept(three, client_of):
    """A limit of pages stands in for the disk: SQLite says the same of both."""
    ada = client_of("ada")
    task = ada.post("/api/next", json={}).json()["task"]

    def limit(pages):
        with three._engine.connect() as connection:
            (held,) = connection.exec_driver_sql("PRAGMA page_count").fetchone()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages or held}")

    limit(0)
    text = "long " * 20_000
    refused = save(ada, task, 0, text)
    assert refused.status_code == 503
    assert refused.json() == {"detail": "could not be saved: disk full"}
    limit(1_000_000)
    assert save(ada, task, 0, text).json()["seq"] == 1
