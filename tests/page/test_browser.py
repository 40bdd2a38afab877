"""The page in a real browser: nothing that is typed is lost, whatever happens."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
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

    def __init__(self, folder: Path, names: list[str], url: str | None = None) -> None:
        self.folder, self.names, self.database = folder, names, url or f"sqlite:///{folder / 'edits.db'}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.store = Store(self.database)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        script = Path(__file__).parent / "serving.py"
        command = [sys.executable, str(script), self.database, str(self.folder), str(self.port), *self.names]
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
def own(tmp_path: Path, url: str) -> Iterator[Served]:
    """A server of a test's own, with links, not started yet."""
    served = Served(tmp_path, ["ada", "ben"], url)
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
    page.on("console", lambda said: page.errors.append(said.text) if "Content Security" in said.text else None)
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


def test_a_full_disk_is_said_and_the_text_stays_in_the_browser(shared: Served, page_of: Open) -> None:
    page = page_of()
    full = {"status": 503, "json": {"detail": "could not be saved: disk full"}}
    page.route("**/revisions", lambda route: route.fulfill(**full))
    append(page, " here")
    wait(page, "failing")
    shown = "Not saved: kept in this browser, and tried again: could not be saved: disk full"
    assert page.inner_text("#state-text") == page.inner_text("#said") == shown
    assert page.evaluate("Object.values(localStorage).some((kept) => JSON.parse(kept).text.endsWith(' here'))")
    page.unroute("**/revisions")
    wait(page, "saved")
    assert head(shared, page).text == "The red lamp comes. here"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_kill_9_after_an_acknowledged_save(
    request: pytest.FixtureRequest, tmp_path: Path, context: Any, kind: str
) -> None:
    served = Served(tmp_path, ["ada", "ben"], request.getfixturevalue(f"{kind}_url"))
    request.addfinalizer(served.store.close)
    request.addfinalizer(served.kill)
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
    wait(page, "saved")
    assert head(shared, page).text == response + "!"
    page.reload()
    page.wait_for_selector("#work:not([hidden])")
    page.focus(EDITOR)
    page.keyboard.press("Control+End")
    page.keyboard.press("Backspace")
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


LATE = "**/revisions"


def held_back(page: Any) -> list[Any]:
    """Saves from now on, which wait until ``send_on``."""
    held: list[Any] = []
    page.route(LATE, lambda route: held.append(route))  # Playwright takes no built-in function
    return held


def send_on(page: Any, held: list[Any]) -> None:
    page.route(LATE, lambda route: route.continue_())  # the last one given is asked first
    held[-1].continue_()


def until(page: Any, true: Callable[[], Any]) -> None:
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < 15
        page.wait_for_timeout(30)


def texts_of(served: Served, page: Any) -> list[str]:
    with served.store.read() as session:
        task = int(page.url.partition("#")[2])
        return list(session.scalars(select(Revision.text).where(Revision.task == task).order_by(Revision.seq)))


LEFT = """([key, at, text, sent]) => localStorage.setItem(key, JSON.stringify({base: 0, at, sent, text, reasons: [],
    note: "", guideline: 0, seconds: 1, keystrokes: 1, pastes: 0}))"""


def leave(served: Served, page: Any, text: str, *, at: int = 1, sent: Sequence[str] = ()) -> None:
    """What a page that is gone has left in the browser."""
    key = f"errata:draft:{served.store.name}:1:{page.url.partition('#')[2]}:{at}"
    page.evaluate(LEFT, [key, at, text, list(sent)])


def test_a_save_that_arrives_after_the_reload_is_no_conflict(shared: Served, page_of: Open) -> None:
    page = page_of()
    leave(shared, page, "one two", sent=["12345678"])
    held = held_back(page)
    page.reload()
    until(page, lambda: held)
    task = int(page.url.partition("#")[2])
    shared.store.save(1, task, revision(0, "one", save_id="12345678"))  # was still on its way
    send_on(page, held)
    wait(page, "saved")
    assert not page.is_visible("#conflict")
    assert texts_of(shared, page) == ["one", "one two"]
    assert page.input_value(EDITOR) == "one two"


def test_two_tabs_that_wrote_the_same_are_no_conflict(shared: Served, page_of: Open) -> None:
    first = page_of()
    second = opened(first.context.new_page(), first.url)
    for page in (first, second):
        append(page, " same")
        wait(page, "saved")
    append(second, " and more")
    wait(second, "saved")
    assert head(shared, first).text == "The red lamp comes. same and more"


def test_what_the_browser_keeps_is_of_this_database(shared: Served, page_of: Open) -> None:
    page = page_of()
    held_back(page)
    append(page, " kept")
    (key,) = page.evaluate("Object.keys(localStorage)")
    task = page.url.partition("#")[2]
    assert key.startswith(f"errata:draft:{shared.store.name}:1:{task}:")  # another --db on this port has other drafts


def test_of_several_drafts_left_over_none_is_lost(shared: Served, page_of: Open) -> None:
    page = page_of()
    for at, text in ((3, "third"), (1, "first"), (2, "second")):
        leave(shared, page, text, at=at)
    page.reload()
    page.wait_for_selector("#work:not([hidden])")
    assert page.input_value(EDITOR) == "third"
    until(page, lambda: texts_of(shared, page) == ["first", "second", "third"])
    wait(page, "saved")
    assert page.evaluate("Object.keys(localStorage).length") == 0


def test_without_https_it_works_too(shared: Served, page_of: Open, context: Any) -> None:
    context.add_init_script("delete Crypto.prototype.randomUUID")  # as on any address but localhost
    page = page_of()
    append(page, " yes")
    wait(page, "saved")


def test_what_is_typed_while_it_is_submitted_is_not_left_behind(shared: Served, page_of: Open) -> None:
    page = page_of()
    task = int(page.url.partition("#")[2])
    append(page, " now")
    wait(page, "saved")
    held = held_back(page)
    page.keyboard.press("Control+Enter")
    until(page, lambda: held)
    page.keyboard.insert_text(" or later")
    send_on(page, held)
    page.wait_for_selector("#message:not([hidden])")
    assert "Submit again" in page.inner_text("#message")
    wait(page, "saved")
    assert "not submitted" in page.inner_text("#submitted")
    assert int(page.url.partition("#")[2]) == task
    assert shared.store.work(1, task).task.final == 2
    page.keyboard.press("Control+Enter")
    until(page, lambda: shared.store.work(1, task).task.final == 4)
    with shared.store.read() as session:
        assert session.scalar(select(Revision.text).where(Revision.task == task, Revision.seq == 4)) == (
            "The red lamp comes. now or later"
        )


def test_a_submit_goes_through_although_the_answer_before_was_lost(shared: Served, page_of: Open) -> None:
    page = page_of()
    task = int(page.url.partition("#")[2])

    def lose(route: Any) -> None:
        route.fetch()
        route.abort()

    page.route(LATE, lose)
    append(page, " here")
    wait(page, "offline")
    page.unroute(LATE)
    page.keyboard.press("Control+Enter")
    until(page, lambda: shared.store.work(1, task).task.outcome == "edited")


def test_a_submit_that_did_not_arrive_says_so(shared: Served, page_of: Open) -> None:
    page = page_of()
    page.route(LATE, lambda route: route.abort())
    append(page, " here")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#message:not([hidden])")
    assert "Not submitted yet" in page.inner_text("#message")
    page.unroute(LATE)
    wait(page, "saved")
    page.wait_for_selector("#message", state="hidden")
    assert head(shared, page).kind == "draft"


def test_undo_of_typing_brings_no_other_response_back(shared: Served, page_of: Open) -> None:
    page = page_of()
    shared.store.add_items([NewItem(id=f"after-{time.monotonic_ns()}", prompt="", response="Another.")])
    append(page, " typed here")
    wait(page, "saved")
    page.keyboard.press("Alt+PageDown")
    page.wait_for_function("() => document.querySelector('#editor').value === 'Another.'")
    for _ in range(4):
        page.keyboard.press("Control+z")
    assert page.input_value(EDITOR) == "Another."


def test_a_long_text_is_saved_when_the_tab_is_hidden(shared: Served, page_of: Open) -> None:
    page = page_of("word " * 15_000)  # a request that outlives its page may have 64 KiB
    states: list[str] = []
    page.expose_function("told", lambda state: states.append(state))
    page.evaluate(
        """() => { new MutationObserver(() => told(document.querySelector('#state').dataset.state))
            .observe(document.querySelector('#state'), {attributes: true});
            Object.defineProperty(document, 'hidden', {value: true}); }"""
    )
    append(page, "end")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    wait(page, "saved")
    assert head(shared, page).text.endswith("end")
    assert "offline" not in states


def test_too_long_a_text_is_refused_in_words(page_of: Open) -> None:
    page = page_of()
    page.evaluate(
        """() => { const editor = document.querySelector('#editor'); editor.hidden = true;
            editor.value = 'x'.repeat(4.3e6); editor.dispatchEvent(new Event('input')); }"""
    )
    wait(page, "refused")
    assert "shorten the text" in page.inner_text("#state")


def test_a_new_guideline_comes_into_view_and_each_save_says_which_was(shared: Served, page_of: Open) -> None:
    page = page_of()
    old = shared.store.guideline().version
    new = shared.store.set_guideline(f"Be kind, {time.monotonic_ns()}.")
    for word, seen in (("one", old), ("two", new)):
        append(page, word)
        wait(page, "saved")
        assert head(shared, page).guideline == seen
        until(page, lambda: "Be kind" in page.inner_text("#guideline"))
    assert f"version {new}, new" in page.inner_text("#guideline-version")


@pytest.mark.parametrize("platform", ["Linux x86_64", "MacIntel"])
def test_each_outcome_has_a_key(shared: Served, page_of: Open, context: Any, platform: str) -> None:
    context.add_init_script(f"Object.defineProperty(Navigator.prototype, 'platform', {{get: () => '{platform}'}})")
    page = page_of()
    task = int(page.url.partition("#")[2])
    held, submit = ("Control", "Meta+Enter") if platform == "MacIntel" else ("Alt", "Control+Enter")
    page.focus(EDITOR)
    for digit, title in ((1, "Flag"), (2, "Skip"), (3, "Cannot be saved")):
        page.keyboard.press(f"{held}+Shift+Digit{digit}")
        assert page.inner_text("#why-title") == title.upper() or page.inner_text("#why-title") == title
        assert page.evaluate("document.activeElement.id") == "note"
        page.keyboard.press("Escape")
        assert not page.is_visible("#why")
    assert page.input_value(EDITOR) == "The red lamp comes."
    page.keyboard.press(f"{held}+Shift+Digit1")
    page.keyboard.type("Look at it?")
    page.keyboard.press(submit)
    until(page, lambda: shared.store.work(1, task).task.outcome == "flag")
    assert shared.store.work(1, task).head.note == "Look at it?"
    assert page.evaluate("document.querySelector('[data-outcome=flag]').getAttribute('aria-keyshortcuts')").endswith(
        "1"
    )
    keys = page.evaluate("document.querySelector('#key-list').textContent")
    assert all(f"{'Ctrl' if held == 'Control' else 'Alt'} Shift {digit}" in keys for digit in (1, 2, 3))


@pytest.mark.parametrize(
    "more",
    [
        {"altKey": True, "shiftKey": True, "isComposing": True},
        {"altKey": True, "shiftKey": True, "repeat": True},
        {"altKey": True, "shiftKey": True, "keyCode": 229},
        {"altKey": True, "ctrlKey": True, "shiftKey": True},  # AltGr, where it is Ctrl and Alt
        {"altKey": True, "shiftKey": True, "modifierAltGraph": True},
        {"shiftKey": True},
        {"ctrlKey": True, "shiftKey": True},
        {"altKey": True, "shiftKey": True, "code": "Digit4"},
    ],
)
def test_no_outcome_by_chance(page_of: Open, more: dict[str, Any]) -> None:
    press = """(more) => !document.querySelector('#editor').dispatchEvent(new KeyboardEvent('keydown',
        {key: '!', code: 'Digit1', bubbles: true, cancelable: true, ...more}))"""
    page = page_of()
    assert page.evaluate(press, more) is False  # what the key does otherwise is left to it
    assert not page.is_visible("#why")
    assert page.evaluate(press, {"altKey": True, "shiftKey": True}) is True
    assert page.is_visible("#why")


def test_on_a_mac_option_and_a_digit_write_their_characters(page_of: Open, context: Any) -> None:
    context.add_init_script("Object.defineProperty(Navigator.prototype, 'platform', {get: () => 'MacIntel'})")
    taken = page_of().evaluate(
        """() => ['Digit5', 'Digit6'].some((code) => !document.querySelector('#editor').dispatchEvent(
            new KeyboardEvent('keydown', {key: '[', code, altKey: true, bubbles: true, cancelable: true})))"""
    )
    assert taken is False


def test_text_of_an_input_method(shared: Served, page_of: Open) -> None:
    page = page_of()
    page.focus(EDITOR)
    page.keyboard.press("Control+End")
    session = page.context.new_cdp_session(page)
    for text in ("に", "にほ", "にほん"):
        session.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})
        page.wait_for_timeout(250)  # drafts are saved meanwhile, and must not disturb it
    session.send("Input.insertText", {"text": "日本"})
    until(page, lambda: head(shared, page) is not None and head(shared, page).text == "The red lamp comes.日本")
    assert page.input_value(EDITOR) == "The red lamp comes.日本"
    page.keyboard.press("Control+z")
    assert "日本" not in page.input_value(EDITOR)


def test_a_screen_reader_is_told_of_trouble_and_not_of_every_save(page_of: Open) -> None:
    page = page_of()
    append(page, " one")
    wait(page, "saved")
    assert page.inner_text("#said") == page.inner_text("#said-well") == ""
    page.route(LATE, lambda route: route.abort())
    append(page, " two")
    wait(page, "offline")
    assert "Offline" in page.inner_text("#said")
    page.unroute(LATE)
    wait(page, "saved")
    assert (page.inner_text("#said"), page.inner_text("#said-well")) == ("", "Saved again")


def test_the_last_submit_can_be_undone_after_a_reload(shared: Served, page_of: Open) -> None:
    page = page_of()
    first = page.url
    shared.store.add_items([NewItem(id=f"after-{time.monotonic_ns()}", prompt="", response="Another.")])
    page.keyboard.press("Control+Enter")
    page.wait_for_function("first => location.href !== first", arg=first)
    page.reload()
    page.wait_for_selector("#work:not([hidden])")
    page.click("#undo")
    page.wait_for_function("first => location.href === first", arg=first)
    until(page, lambda: shared.store.work(1, int(first.partition("#")[2])).task.outcome is None)
    page.wait_for_selector("#undo", state="hidden")


def test_effort_counts_keys_that_write(shared: Served, page_of: Open) -> None:
    page = page_of()
    page.focus(EDITOR)
    page.keyboard.press("Control+End")
    page.keyboard.type("ab")
    for key in ("Backspace", "Enter", "ArrowLeft", "Control+c", "Control+z", "Shift", "Alt"):
        page.keyboard.press(key)
    wait(page, "saved")
    page.keyboard.type("c")
    wait(page, "saved")
    assert head(shared, page).keystrokes == 5
    assert head(shared, page).seconds > 0


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
