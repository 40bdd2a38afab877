"""Revisions are only added, a stale base is a conflict, and items are lent."""

import threading
from contextlib import closing

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError

from errata.page.store import HELD, Conflict, Effort, NewItem, Revision, Store

from .conftest import revision


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


def count(store):
    with store.read() as session:
        return session.scalar(select(func.count()).select_from(Revision))


def submit(store, who, task, word, **more):
    head = store.work(who, task).task.head
    more = {"outcome": "edited"} | more
    return store.save(who, task, revision(head, word, kind="submit", **more))


def test_sqlite_is_set_up_to_lose_nothing(sqlite_url):
    with closing(Store(sqlite_url)) as store, store.read() as session:
        found = {name: session.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")}
        assert found == {"journal_mode": "wal", "synchronous": 2}
        assert session.execute(text("PRAGMA busy_timeout")).scalar() == 10_000


@pytest.mark.parametrize("change", [update(Revision).values(text="x"), delete(Revision)])
def test_revisions_cannot_be_changed_or_deleted(three, change):
    three.save(1, three.next_task(1), revision(0, "one"))
    with pytest.raises(DBAPIError, match="only added"), three.write() as session:
        session.execute(change)
    assert count(three) == 1


def test_revisions_cannot_be_truncated_either(postgresql_url):
    with (
        closing(Store(postgresql_url)) as store,
        pytest.raises(DBAPIError, match="only added"),
        store.write() as session,
    ):
        session.execute(text("TRUNCATE revision"))


def test_a_stale_base_is_a_conflict_that_shows_the_other(three):
    task = three.next_task(1)
    three.save(1, task, revision(0, "first tab"))
    with pytest.raises(Conflict) as conflict:
        three.save(1, task, revision(0, "second tab"))
    assert conflict.value.head.text == "first tab"
    assert count(three) == 1
    assert three.save(1, task, revision(1, "second tab")).seq == 2


def test_a_base_that_is_not_there_is_no_base(three):
    task = three.next_task(1)
    for base in (1, 7):
        with pytest.raises(ValueError, match="not there"):
            three.save(1, task, revision(base, "x"))
    assert count(three) == 0


def test_a_save_sent_twice_is_one_revision(three):
    task = three.next_task(1)
    first = three.save(1, task, revision(0, "same"))
    assert three.save(1, task, revision(0, "same")).number == first.number
    assert count(three) == 1


def test_no_other_text_is_acknowledged_under_the_name_of_a_save(three):
    task = three.next_task(1)
    three.save(1, task, revision(0, "same", save_id="12345678"))
    for more in ({"text": "other"}, {"kind": "submit", "outcome": "edited"}):
        with pytest.raises(ValueError, match="'12345678'"):
            three.save(1, task, revision(0, **{"text": "same", "save_id": "12345678"} | more))
    assert count(three) == 1


def test_of_many_saves_at_once_on_one_base_one_wins(three):
    task = three.next_task(1)
    outcomes = []

    def save(word):
        try:
            outcomes.append(three.save(1, task, revision(0, word)).text)
        except Conflict:
            outcomes.append(None)

    threads = [threading.Thread(target=save, args=(f"tab {k}",)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 8
    assert sum(each is not None for each in outcomes) == count(three) == 1


def test_two_stores_on_one_database_conflict_too(three, url):
    other = Store(url)
    task = three.next_task(1)
    other.save(1, task, revision(0, "there"))
    with pytest.raises(Conflict):
        three.save(1, task, revision(0, "here"))
    assert three.save(1, task, revision(1, "here")).seq == 2
    other.close()


def test_nobody_reaches_the_task_of_another(three):
    task = three.next_task(1)
    for ask in (lambda: three.work(2, task), lambda: three.save(2, task, revision(0, "x")), lambda: three.work(1, 99)):
        with pytest.raises(LookupError):
            ask()


@pytest.mark.parametrize(
    ("outcome", "written", "note", "said"),
    [
        ("edited", "The red lamp.", "", "already good"),
        ("good", "The red lamps.", "", "reset"),
        ("skip", "The red lamp.", " ", "why"),
        ("great", "x", "", "none of"),
        (None, "x", "", "none of"),
    ],
)
def test_an_outcome_fits_the_text(three, outcome, written, note, said):
    task = three.next_task(1)
    with pytest.raises(ValueError, match=said):
        submit(three, 1, task, written, outcome=outcome, note=note)
    assert count(three) == 0
    assert three.work(1, task).task.head == 0


def test_submit_and_open_again(three):
    task = three.next_task(1)
    submit(three, 1, task, "better", effort=Effort(seconds=3.5, keystrokes=7, pastes=1), reasons=("wrong",))
    work = three.work(1, task)
    assert (work.task.outcome, work.task.final, work.item.open) == ("edited", 1, False)
    assert (work.head.seconds, work.head.keystrokes, work.head.pastes, work.head.reasons) == (3.5, 7, 1, ["wrong"])
    three.save(1, task, revision(1, "a draft after it"))
    assert three.work(1, task).task.final == 1  # what was submitted still counts
    three.save(1, task, revision(2, "better", kind="reopen"))
    work = three.work(1, task)
    assert (work.task.outcome, work.task.final, work.item.open) == (None, None, True)
    assert three.next_task(1) == task


def test_begun_work_comes_first_and_a_new_item_may_be_asked_for(three):
    first = three.next_task(1)
    assert three.next_task(1) == first
    second = three.next_task(1, new=True)
    assert second != first
    assert three.tasks(1) == [(first, None), (second, None)]


def test_an_item_is_lent_to_one_until_the_lease_ends(three, monkeypatch):
    mine = three.work(1, three.next_task(1)).item.id
    theirs = three.next_task(2)
    assert three.work(2, theirs).item.id != mine
    now = [1e10]
    monkeypatch.setattr("errata.page.store.time.time", lambda: now[0])
    submit(three, 2, theirs, "done")
    task = three.next_task(2)  # ada's lease is long over
    assert three.work(2, task).item.id == mine
    submit(three, 2, task, "ben was quicker")
    assert three.save(1, 1, revision(0, "ada still types")).text == "ada still types"
    assert three.work(1, three.next_task(1)).item.id != mine


def test_what_another_took_over_is_not_lent_back(three, monkeypatch):
    now = [1e10]
    monkeypatch.setattr("errata.page.store.time.time", lambda: now[0])
    mine = three.next_task(1)
    three.save(1, mine, revision(0, "ada was called away"))
    now[0] += 1801
    assert three.work(2, three.next_task(2)).item.id == three.work(1, mine).item.id
    assert three.next_task(1) != mine  # or two would do the work of one
    now[0] += 1801
    assert three.next_task(1) == mine  # ben went, too
    assert three.work(1, mine).head.text == "ada was called away"


def test_a_save_renews_the_lease(three, monkeypatch):
    now = [1e10]
    monkeypatch.setattr("errata.page.store.time.time", lambda: now[0])
    mine = three.work(1, three.next_task(1)).item.id
    now[0] += 1700
    three.save(1, 1, revision(0, "x"))
    now[0] += 1700
    assert three.work(2, three.next_task(2)).item.id != mine


def test_no_more_annotators_than_asked_for_at_once(store):
    store.add_items(NewItem(id=str(k), prompt="", response="x y") for k in range(6))
    people = [store.add_annotator(f"annotator {k}") and k + 1 for k in range(8)]
    store.set_overlap(3)
    lent = []

    def work(who):
        for _ in range(6):
            store.next_task(who, new=True)
        lent.extend(store.work(who, task).item.id for task, _ in store.tasks(who))

    threads = [threading.Thread(target=work, args=(who,)) for who in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lent) == sorted(str(k) for k in range(6) for _ in range(3))


@pytest.mark.parametrize("overlap", [1, 2])
def test_overlap(three, overlap):
    three.set_overlap(overlap)
    seen = {1: [], 2: []}
    for who in (1, 2, 1, 2, 1, 2):
        task = three.next_task(who)
        if task is not None:
            seen[who].append(three.work(who, task).item.id)
            submit(three, who, task, "changed")
    assert len(seen[1] + seen[2]) == 3 * overlap
    assert len(set(seen[1])) == len(seen[1])
    assert three.next_task(1) is three.next_task(2) is None
    three.set_overlap(overlap + 1)
    assert (three.next_task(1) is None) == (overlap == 2)


def test_who_skips_leaves_it_to_others(three):
    task = three.next_task(1)
    item = three.work(1, task).item.id
    submit(three, 1, task, "The red lamp.", outcome="skip", note="not my field")
    assert three.work(1, three.next_task(1)).item.id != item
    assert three.work(2, three.next_task(2)).item.id == item


def test_nobody_holds_everything(store):
    store.add_items(NewItem(id=str(k), prompt="", response="x y") for k in range(HELD + 5))
    store.add_annotator("ada")
    tasks = {store.next_task(1, new=True) for _ in range(HELD + 3)}
    assert len(tasks) == HELD


def test_items_are_added_once_and_never_changed(three):
    again = [NewItem(id="red", prompt="Say it.", response="The red lamp."), NewItem(id="new", prompt="", response="x")]
    assert three.add_items(again) == (1, 1)
    with pytest.raises(ValueError, match="'red' with another response"):
        three.add_items([NewItem(id="red", prompt="", response="y")])


def test_the_guideline_has_versions_and_each_revision_says_which(three):
    assert three.guideline().version == 0
    assert three.set_guideline("be brief") == three.set_guideline("be brief") == 1
    task = three.next_task(1)
    three.save(1, task, revision(0, "x", guideline=1))
    assert three.set_guideline("be kind") == 2
    three.save(1, task, revision(1, "y", guideline=1))  # a page that was open before
    three.save(1, task, revision(2, "z", guideline=2))
    with three.read() as session:
        assert list(session.scalars(select(Revision.guideline).order_by(Revision.seq))) == [1, 1, 2]
    with pytest.raises(ValueError, match="no version 3"):
        three.save(1, task, revision(3, "z", guideline=3))


@pytest.mark.parametrize("name", ["'; DROP TABLE revision; --", 'ada"', "a%sda", "\u202eada", "../../etc/passwd", "🙂"])
def test_any_name_is_only_a_name(store, name):
    store.add_items([NewItem(id=name, prompt=name, response=name)])
    token = store.add_annotator(name)
    assert store.annotator_of(token).name == name
    store.save(1, store.next_task(1), revision(0, name + "!", note=name, reasons=[name]))
    assert count(store) == 1
    assert store.work(1, 1).head.reasons == [name]


def test_a_character_that_postgresql_cannot_keep_is_told_in_words(url, store):
    if url.startswith("sqlite"):
        store.add_items([NewItem(id="zero", prompt="", response="a\0b")])
    else:
        with pytest.raises(ValueError, match=r"'zero'.*U\+0000"):
            store.add_items([NewItem(id="zero", prompt="", response="a\0b")])
        store.add_items([NewItem(id="zero", prompt="\0", response="ab")])
    store.add_annotator("ada")
    task = store.next_task(1)
    if url.startswith("sqlite"):
        assert store.save(1, task, revision(0, "a\0c")).text == "a\0c"
    else:
        with pytest.raises(ValueError, match=r"U\+0000"):
            store.save(1, task, revision(0, "a\0c"))
    assert store.work(1, task).item.prompt in ("", "\0")


def test_what_is_typed_is_in_no_error(three):
    one = three.save(1, three.next_task(1), revision(0, "typed in confidence"))
    columns = {column.name: getattr(one, column.name) for column in Revision.__table__.columns}
    with pytest.raises(DBAPIError) as error, three.write() as session:
        session.add(Revision(**columns | {"number": 2, "task": 99}))
    assert "confidence" not in str(error.value)


def test_crlf_is_kept_and_recorded(store):
    store.add_items([NewItem(id="a", prompt="", response="one\r\ntwo\r\n")])
    store.add_annotator("ada")
    task = store.next_task(1)
    saved = submit(store, 1, task, "one\nTWO\n")
    assert (saved.text, saved.breaks) == ("one\r\nTWO\r\n", "crlf")
    store.save(1, task, revision(1, "x", kind="reopen"))
    with pytest.raises(ValueError, match="already good"):
        submit(store, 1, task, "one\ntwo\n")


def test_tokens(store):
    first = store.add_annotator("ada")
    second = store.add_annotator("ben")
    assert store.add_annotator("ada") is None
    assert [store.annotator_of(token).name for token in (first, second)] == ["ada", "ben"]
    secret = first.partition(".")[2]
    assert len(secret) >= 43  # 256 bits
    for wrong in (
        "",
        "1",
        first + "x",
        f"2.{secret}",
        f"99.{secret}",
        f"-1.{secret}",
        f"x.{secret}",
        "1.",
        "²." + secret,
    ):
        assert store.annotator_of(wrong) is None
    renewed = store.add_annotator("ada", new_token=True)
    assert store.annotator_of(first) is None
    assert store.annotator_of(renewed).name == "ada"
    with pytest.raises(ValueError, match="name of an annotator"):
        store.add_annotator("ada", admin=True)


def test_tokens_are_compared_in_constant_time_and_kept_as_hashes(store, tmp_path, monkeypatch):
    token = store.add_annotator("ada")
    compared = []
    real = __import__("hmac").compare_digest
    monkeypatch.setattr("errata.page.store.hmac.compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    assert store.annotator_of(token) is not None
    assert store.annotator_of("7." + token) is None
    assert len(compared) == 2
    store.close()
    secret = token.partition(".")[2].encode()
    assert not any(secret in path.read_bytes() for path in tmp_path.iterdir())


def test_a_database_of_another_schema_is_refused(store, url):
    with store.write() as session:
        session.execute(text("UPDATE setting SET value = '99' WHERE name = 'schema'"))
    with pytest.raises(ValueError, match="schema 99"):
        Store(url)


def test_an_import_lets_others_save_between_its_chunks(three):
    task = three.next_task(1)
    done = threading.Event()

    def bring_in():
        three.add_items(NewItem(id=str(k), prompt="p", response="word " * 50) for k in range(2000))
        done.set()

    thread = threading.Thread(target=bring_in)
    thread.start()
    base = 0
    while not done.is_set():
        three.save(1, task, revision(base, f"draft {base}"))
        base += 1
    thread.join()
    assert base > 5
