"""The page in a real browser: nothing that is typed is lost, whatever happens."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from errata.page.export import final_edits
from errata.page.store import NewItem, Revision, Store

from .conftest import revision

pytestmark = pytest.mark.browser

HOSTILE = (
    "<script>hurt=1</script><img src='http://evil.example/x.png' onerror='hurt=2'>![x](http://evil.example/y.png)"
    "\u202eevil\u202c \"' onmouseover=hurt=3 &lt; {{7*7}} javascript:hurt=4"
)
ODD = "👩🏽‍💻 🏳️‍🌈 e\u0301 é שלום עולם مرحبا\u200f\n\n```python\n\tx = 1  \n```\ntrailing   \n\n"
EDITOR = "#editor"


class Served:
    """A server in its own process, and its database."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = Store(f"sqlite:///{folder / 'edits.db'}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        script = Path(__file__).parent / "serving.py"
        command = [sys.executable, str(script), str(self.folder), str(self.port), *self.names]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(400):
            try:
                urllib.request.urlopen(f"{self.url}/favicon.ico", timeout=5).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError((self.folder / "log").read_text())

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def token(self, name: str) -> str:
        lines = (self.folder / "tokens").read_text().splitlines()
        return dict(line.split() for line in lines)[name]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for the tests that do not kill it; they take new items each."""
    served = Served(tmp_path_factory.mktemp("shared"), [])
    served.start()
    yield served
    served.kill()
    served.store.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A server of a test's own, with links, not started yet."""
    served = Served(tmp_path, ["ada", "ben"])
    yield served
    served.kill()
    served.store.close()


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    made = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield made
    made.close()


Open = Callable[..., Any]


@pytest.fixture
def page_of(shared: Served, context: Any, request: pytest.FixtureRequest) -> Open:
    """Opens the editor on an item of this test's own."""

    def open_item(response: str = "The red lamp comes.", **more: Any) -> Any:
        name = f"{request.node.name}-{time.monotonic_ns()}"
        shared.store.add_items([NewItem(**{"id": name, "prompt": "Which lamp?", "response": response} | more)])
        (annotator,) = shared.store.annotators()
        while True:
            task = shared.store.next_task(annotator.number)
            if shared.store.work(annotator.number, task).item.id == name:
                break
            finish(shared.store, task)
        return opened(context.new_page(), f"{shared.url}/#{task}")

    return open_item


def finish(store: Store, task: int) -> None:
    work = store.work(1, task)
    store.save(1, task, revision(work.task.head, work.item.response, kind="submit", outcome="flag"))


def opened(page: Any, url: str) -> Any:
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(url)
    page.wait_for_selector("#work:not([hidden])")
    return page


def wait(page: Any, state: str) -> None:
    page.wait_for_selector(f"#state[data-state={state}]", timeout=8000)


def head(served: Served, page: Any) -> Any:
    return served.store.work(1, int(page.url.partition("#")[2])).head


def append(page: Any, text: str) -> None:
    page.focus(EDITOR)
    page.keyboard.press("Control+End")
    page.keyboard.insert_text(text)


def test_a_draft_is_saved_within_a_second_and_says_so(shared: Served, page_of: Open) -> None:
    page = page_of()
    page.focus(EDITOR)
    page.keyboard.press("Control+End")
    page.keyboard.type(" Soon.")
    assert page.get_attribute("#state", "data-state") in ("unsaved", "saving")
    started = time.monotonic()
    while (saved := head(shared, page)) is None or saved.text != "The red lamp comes. Soon.":
        assert time.monotonic() - started < 1.5
        time.sleep(0.03)
    wait(page, "saved")
    assert "".join(page.locator("#changes ins").all_inner_texts()) == " Soon."
    assert "words in" in page.inner_text("#meter-text")
    assert head(shared, page).keystrokes == 6
    assert page.evaluate("Object.keys(localStorage).length") == 0  # forgotten once it is on disk
    assert page.errors == []


def test_the_browser_keeps_each_letter_at_once(page_of: Open) -> None:
    kept = page_of().evaluate(
        """() => { const editor = document.querySelector('#editor'); editor.value += ' kept';
            editor.dispatchEvent(new Event('input')); return Object.values(localStorage).join(); }"""
    )
    assert "The red lamp comes. kept" in kept


def test_while_somebody_types_on_it_is_saved_all_the_same(shared: Served, page_of: Open) -> None:
    page = page_of()
    page.focus(EDITOR)
    page.keyboard.press("Control+End")
    for _ in range(16):  # never quiet for as long as a draft waits
        page.keyboard.type("x")
        time.sleep(0.1)
    assert head(shared, page) is not None


def test_reload_and_navigation_lose_nothing(shared: Served, page_of: Open) -> None:
    page = page_of()
    append(page, " one")
    page.reload()  # at once
    page.wait_for_selector("#work:not([hidden])")
    assert page.input_value(EDITOR) == "The red lamp comes. one"
    append(page, " two")
    page.goto("about:blank")
    page.go_back()
    page.wait_for_selector("#work:not([hidden])")
    assert page.input_value(EDITOR) == "The red lamp comes. one two"
    wait(page, "saved")
    assert head(shared, page).text == "The red lamp comes. one two"


@pytest.mark.parametrize("choice", ["mine", "theirs"])
def test_a_second_tab_is_a_conflict_and_both_texts_are_kept(shared: Served, page_of: Open, choice: str) -> None:
    first = page_of()
    second = opened(first.context.new_page(), first.url)
    append(first, " first")
    wait(first, "unsaved")
    wait(first, "saved")
    append(second, " second")
    wait(second, "conflict")
    assert head(shared, first).text == "The red lamp comes. first"
    assert second.is_visible("#conflict")
    assert second.is_disabled("#submit")
    second.click("summary:visible")
    assert second.inner_text("#other") == "The red lamp comes. first"
    second.click(f"#{choice}")
    wait(second, "saved")
    expected = {"mine": "The red lamp comes. second", "theirs": "The red lamp comes. first"}[choice]
    second.wait_for_function("text => document.querySelector('#editor').value === text", arg=expected)
    for _ in range(100):
        if head(shared, first).text == expected and head(shared, first).seq > 1:
            break
        time.sleep(0.03)
    task = int(first.url.partition("#")[2])
    with shared.store.read() as session:
        texts = list(session.scalars(select(Revision.text).where(Revision.task == task).order_by(Revision.seq)))
    assert texts[:2] == ["The red lamp comes. first", "The red lamp comes. second"]
    assert texts[-1] == expected


def test_offline_and_back(shared: Served, page_of: Open) -> None:
    page = page_of()
    page.context.set_offline(True)
    append(page, " offline")
    wait(page, "offline")
    assert "kept in this browser" in page.inner_text("#state")
    append(page, " still")
    assert head(shared, page) is None
    page.context.set_offline(False)
    wait(page, "saved")
    assert head(shared, page).text == "The red lamp comes. offline still"


@pytest.mark.parametrize("reload", [False, True])
def test_a_lost_answer_is_no_conflict(shared: Served, page_of: Open, reload: bool) -> None:
    """The save arrives, its answer does not."""
    page = page_of()

    def lose(route: Any) -> None:
        route.fetch()
        route.abort()

    page.route("**/revisions", lose)
    append(page, " here")
    wait(page, "offline")
    assert head(shared, page).text == "The red lamp comes. here"
    append(page, " there")
    page.unroute("**/revisions")
    if reload:
        page.reload()
        page.wait_for_selector("#work:not([hidden])")
    wait(page, "saved")
    assert page.input_value(EDITOR) == head(shared, page).text == "The red lamp comes. here there"
    assert not page.is_visible("#conflict")


def test_kill_9_after_an_acknowledged_save(own: Served, context: Any) -> None:
    served = own
    served.store.add_items([NewItem(id="a", prompt="", response=ODD)])
    served.start()
    page = opened(context.new_page(), f"{served.url}/#token={served.token('ada')}")
    assert page.url.partition("#")[2] == "1"  # the token is out of sight
    assert "token" not in page.evaluate("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})")
    append(page, "kept")
    wait(page, "saved")
    page.wait_for_function("() => !Object.keys(localStorage).length")
    served.kill()
    append(page, " too")
    wait(page, "offline")
    assert head(served, page).text == ODD + "kept"
    served.start()
    wait(page, "saved")
    assert head(served, page).text == ODD + "kept too"
    assert served.token("ada").partition(".")[2] not in (served.folder / "log").read_text()


@pytest.mark.parametrize("response", [ODD, ODD.replace("\n", "\r\n"), "\n\na\r\nb\nc\rd\n", HOSTILE])
def test_text_round_trips_to_the_character(shared: Served, page_of: Open, response: str) -> None:
    page = page_of(response)
    assert page.is_visible("#breaks") == ("\r" in response)
    assert page.inner_text("#submit-text") == "Already good"
    append(page, "!")
    wait(page, "unsaved")
    wait(page, "saved")
    assert head(shared, page).text == response + "!"
    page.reload()
    page.wait_for_selector("#work:not([hidden])")
    page.focus(EDITOR)
    page.keyboard.press("Control+End")
    page.keyboard.press("Backspace")
    wait(page, "unsaved")
    wait(page, "saved")
    assert head(shared, page).text == response
    assert page.inner_text("#submit-text") == "Already good"


def test_hostile_text_neither_runs_nor_fetches(shared: Served, page_of: Open) -> None:
    requests: list[str] = []
    page = page_of("x", prompt=[{"role": HOSTILE, "content": HOSTILE}], reference=HOSTILE)
    page.on("request", lambda request: requests.append(request.url))
    page.reload()
    page.wait_for_selector("#work:not([hidden])")
    append(page, HOSTILE)
    wait(page, "unsaved")
    wait(page, "saved")
    assert page.evaluate("typeof hurt") == "undefined"
    assert page.evaluate("document.querySelectorAll('main img, main script, main a, main iframe').length") == 0
    assert all(url.startswith(shared.url) for url in requests)
    shown = page.inner_text("#prompt") + page.inner_text("#changes")
    assert "\u202e" not in shown
    assert "⟨U+202E⟩" in shown
    assert "U+202E" in page.inner_text("#unseen")
    assert page.errors == []


def test_the_policy_stops_what_would_get_through(page_of: Open) -> None:
    page = page_of()
    page.evaluate(
        """() => { for (const [tag, set] of [['script', {text: 'hurt = 1'}], ['img', {src: 'http://evil.example/x'}]]) {
            try { document.body.append(Object.assign(document.createElement(tag), set)); } catch { } } }"""
    )
    assert page.evaluate("typeof hurt") == "undefined"
    assert page.evaluate("fetch('http://evil.example/').then(() => 'fetched', () => 'blocked')") == "blocked"


def test_keys(shared: Served, page_of: Open) -> None:
    page = page_of()
    first = page.url
    shared.store.add_items([NewItem(id=f"after-{time.monotonic_ns()}", prompt="", response="Another.")])
    append(page, " Yes.")
    page.keyboard.press("Control+z")
    assert page.input_value(EDITOR) == "The red lamp comes."
    append(page, " No.")
    page.keyboard.press("Control+Shift+Backspace")
    assert page.input_value(EDITOR) == "The red lamp comes."
    page.keyboard.press("Control+z")  # a reset can be undone, too
    assert page.input_value(EDITOR) == "The red lamp comes. No."
    page.keyboard.press("Alt+1")
    assert page.is_checked("#reasons input >> nth=0")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("first => location.href !== first", arg=first)
    assert shared.store.work(1, int(first.partition("#")[2])).task.outcome == "edited"
    page.keyboard.press("Control+Shift+Enter")
    page.wait_for_function("first => location.href === first", arg=first)
    wait(page, "saved")
    page.wait_for_selector("#undo", state="hidden")
    assert shared.store.work(1, int(first.partition("#")[2])).task.outcome is None
    assert page.input_value(EDITOR) == "The red lamp comes. No."
    assert head(shared, page).reasons == ["wrong"]
    page.keyboard.press("Alt+PageDown")
    page.wait_for_function("first => location.href !== first", arg=first)
    page.keyboard.press("Alt+PageUp")
    page.wait_for_function("first => location.href === first", arg=first)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.is_visible("#keys")
    page.keyboard.press("Escape")
    page.focus(EDITOR)
    page.keyboard.type("?")
    assert not page.is_visible("#keys")


@pytest.mark.parametrize("held", [{"isComposing": True}, {"repeat": True}, {"keyCode": 229}])
def test_no_key_works_while_composing_or_held_down(page_of: Open, held: dict[str, Any]) -> None:
    page = page_of()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    press = """(more) => document.querySelector('#editor').dispatchEvent(new KeyboardEvent('keydown',
        {key: 'Enter', ctrlKey: true, bubbles: true, ...more}))"""
    page.evaluate(press, held)
    page.wait_for_timeout(150)
    assert sent == []
    page.evaluate(press, {})
    page.wait_for_selector("#undo, #message:not([hidden])")


def test_what_is_unsaved_when_another_response_comes_is_saved_to_its_own(shared: Served, page_of: Open) -> None:
    page = page_of()
    task = int(page.url.partition("#")[2])
    shared.store.add_items([NewItem(id=f"after-{time.monotonic_ns()}", prompt="", response="Another.")])
    page.route("**/revisions", lambda route: route.abort())
    append(page, " late")
    wait(page, "offline")
    page.click("#next")
    page.wait_for_function("() => document.querySelector('#editor').value === 'Another.'")
    page.unroute("**/revisions")
    started = time.monotonic()
    while (saved := shared.store.work(1, task).head) is None:
        assert time.monotonic() - started < 8
        time.sleep(0.05)
    assert saved.text == "The red lamp comes. late"
    assert page.input_value(EDITOR) == "Another."
    assert head(shared, page) is None


def test_skip_wants_a_reason(shared: Served, page_of: Open) -> None:
    page = page_of()
    task = int(page.url.partition("#")[2])
    page.click("[data-outcome=skip]")
    page.click("#why .primary")
    assert page.is_visible("#why")
    page.fill("#note", "not my field")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#why", state="hidden")
    page.wait_for_selector("#undo, #message:not([hidden])")
    work = shared.store.work(1, task)
    assert (work.task.outcome, work.head.note) == ("skip", "not my field")


def test_a_rewrite_is_warned_of_softly(page_of: Open) -> None:
    page = page_of("One two three four five six seven eight nine ten.")
    append(page, " A few.")
    wait(page, "unsaved")
    wait(page, "saved")
    assert page.is_hidden("#warning")
    page.fill(EDITOR, "Something else altogether, which has nothing in common with it!")
    page.wait_for_selector("#warning:not([hidden])")
    assert page.is_enabled("#submit")


def test_everything_has_a_name_and_is_reached_by_keyboard(page_of: Open) -> None:
    page = page_of()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, textarea, input, a, summary, meter')].filter((one) =>
            !(one.ariaLabel || one.textContent.trim() || one.labels?.length)).map((one) => one.outerHTML)"""
    )
    assert unnamed == []
    seen = []
    page.keyboard.press("Escape")
    for _ in range(24):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.outcome || ''"))
    assert {"submit", "skip", "flag", "unsalvageable", "previous", "next", "help", "changes"} <= set(seen)


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("path", ["/", "/admin"])
def test_nothing_runs_over_the_side(shared: Served, page_of: Open, width: int, path: str) -> None:
    page = page_of("w" * 400 + " ש" * 100, prompt="p" * 500, reference="r" * 500)
    page.set_viewport_size({"width": width, "height": 800})
    if path == "/admin":
        page.goto(shared.url + path)
        page.wait_for_selector("#overview:not([hidden])")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_last_item_and_the_overview(chromium: Any, own: Served, context: Any) -> None:
    served = own
    served.store.set_guideline("# Be *brief*\n\n<b>x</b> ![pic](http://evil.example/x.png) [site](https://a.example)")
    served.store.add_items([NewItem(id=HOSTILE, prompt="", response="The red lamp comes.")])
    served.start()
    page = opened(context.new_page(), f"{served.url}/#token={served.token('ada')}")
    assert page.inner_text("#guideline em") == "brief"
    assert "<b>x</b> pic" in page.inner_text("#guideline")
    append(page, " Now.")
    page.click("#submit")
    page.wait_for_selector("#message:not([hidden])")
    assert "Nothing is left" in page.inner_text("#message")
    assert [row.edited for row in final_edits(served.store)] == ["The red lamp comes. Now."]
    page.click("#message button")
    page.wait_for_selector("#work:not([hidden])")
    page.click("[data-outcome=flag]")
    page.fill("#note", HOSTILE)
    page.click("#why .primary")
    page.wait_for_selector("#message:not([hidden])")
    admin = chromium.new_context()
    overview = admin.new_page()
    overview.goto(f"{served.url}/admin#token={served.token('admin')}")
    overview.wait_for_selector("#overview:not([hidden])")
    assert "token" not in overview.url
    text = overview.inner_text("#overview")
    assert "1 of 1" in text
    assert "flag 1" in text
    assert "<script>hurt=1" in text
    assert overview.evaluate("typeof hurt") == "undefined"
    stranger = chromium.new_context()
    other = stranger.new_page()
    other.goto(served.url)
    other.wait_for_selector("#message:not([hidden])")
    assert "link" in other.inner_text("#message")
    for each in (admin, stranger):
        each.close()
