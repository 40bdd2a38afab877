// The editor: one response at a time.

import { ask, signIn } from "./api.js";
import { Draft, forget, leftOver } from "./drafts.js";
import { Effort } from "./effort.js";
import { duration, el, tree, unseen, visible } from "./text.js";

const at = (id) => document.getElementById(id);
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const MOD = MAC ? "⌘" : "Ctrl";
const KEYS = [
  [`${MOD} Enter`, "Submit and go on"],
  [`${MOD} Shift Enter`, "Undo the last submit"],
  [`${MOD} Shift Backspace`, "Reset to the response as it was"],
  ["Alt Page Up, Alt Page Down", "Previous, next response"],
  ["Alt 1 … 9", "Reason tags"],
  [`${MOD} Z`, "Undo typing"],
  ["Escape, then Tab", "Leave the text"],
  ["?", `These keys (while typing: ${MOD} /)`],
];
const STATES = {
  saved: "Saved",
  unsaved: "Unsaved",
  saving: "Saving",
  offline: "Offline: kept in this browser",
  conflict: "Conflict",
  refused: "Not saved",
};
const OUTCOMES = {
  edited: "edited",
  good: "already good",
  unsalvageable: "cannot be saved",
  skip: "skipped",
  flag: "flagged",
};
const ASKED = {
  flag: ["Flag", "What should somebody look at?", false],
  skip: ["Skip", "Why do you skip it? It goes to somebody else.", true],
  unsalvageable: ["Cannot be saved", "What is wrong with it? A word is enough, or none.", false],
};
const MOST = 0.5; // of the words changed: a rewrite

const editor = at("editor");
const effort = new Effort();
let me = null;
let now = null; // the task on the page
let draft = null;
let loading = false;
let lastSubmitted = null;

function message(text) {
  at("message").hidden = !text;
  at("message").textContent = text;
}

const changed = () => editor.value !== now.response;

function content() {
  const reasons = [...at("reasons").querySelectorAll("input:checked")].map((box) => box.value);
  return { text: editor.value, reasons, note: at("note").value, ...effort.counts() };
}

function showState(state, detail = "") {
  const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  at("state").dataset.state = state;
  at("state-text").textContent = (STATES[state] + (state === "saved" && now?.saved ? ` ${time}` : "")) + (detail && `: ${detail}`);
  at("conflict").hidden = state !== "conflict";
  at("submit").disabled = state === "conflict";
  if (state === "conflict") at("other").replaceChildren(...visible(draft.head.text));
}

function signs(text) {
  return text.trim() ? visible(text, { breaks: true }) : visible(text.replaceAll(" ", "·").replaceAll("\t", "⇥"), { breaks: true });
}

function showChanges({ edits, meter }) {
  if (edits === null) {
    at("changes").replaceChildren(el("p", { class: "soft" }, "Too long to compare while you type. It is saved all the same."));
    at("meter-text").textContent = "";
    return;
  }
  const any = edits.some(([op]) => op !== "keep");
  at("changes").replaceChildren(
    ...edits.flatMap(([op, before, after]) => {
      if (op === "keep") return visible(before);
      return [before && el("del", {}, ...signs(before)), after && el("ins", {}, ...signs(after))].filter(Boolean);
    }),
  );
  const percent = Math.round(meter.share * 100);
  at("meter").value = meter.share;
  at("meter-text").textContent = any ? `${percent} % · ${meter.added} words in, ${meter.removed} out` : "nothing changed";
  at("warning").hidden = meter.share < MOST || meter.added + meter.removed < 8;
}

function typed() {
  const edited = changed();
  at("submit-text").textContent = edited ? "Submit edit" : "Already good";
  at("reset").disabled = !edited;
  const found = unseen(editor.value);
  at("unseen").hidden = !found.length;
  at("unseen").textContent = found.length ? `Holds characters that cannot be seen: ${found.join(" ")}` : "";
}

function showProgress(progress) {
  const rest = progress.left_seconds === null ? "" : ` · about ${duration(progress.left_seconds)} left`;
  const pace = progress.pace_seconds === null ? "" : ` · ${duration(progress.pace_seconds)} each`;
  at("progress").textContent = `${progress.done} done, ${progress.left} to go${pace}${rest}`;
}

function turns(prompt) {
  if (typeof prompt === "string") return [el("p", { class: "plain turn", dir: "auto" }, ...visible(prompt || "(none)"))];
  return prompt.map(({ role, content }) =>
    el("div", { class: "turn" }, el("h3", {}, ...visible(role)), el("p", { class: "plain", dir: "auto" }, ...visible(content))),
  );
}

async function show(task) {
  loading = true;
  try {
    const data = await ask(`/api/tasks/${task}`);
    draft?.close();
    now = data;
    history.replaceState(null, "", `#${task}`);
    const head = data.head ?? { seq: 0, text: data.response, reasons: [], note: "", seconds: 0, keystrokes: 0, pastes: 0 };
    const left = leftOver(me.name, task).filter(({ key, text, reasons, note }) => {
      const known = text === head.text && `${reasons}` === `${head.reasons}` && note === head.note;
      if (known) forget(key);
      return !known;
    });
    draft = new Draft({ who: me.name, task, seq: head.seq, content, on: { state: showState, saved } });
    const start = left[0] ?? head;
    editor.value = start.text;
    effort.start(start);
    at("note").value = start.note;
    for (const box of at("reasons").querySelectorAll("input")) box.checked = start.reasons.includes(box.value);
    at("prompt").replaceChildren(...turns(data.prompt));
    at("reference-box").hidden = data.reference === null;
    at("reference").replaceChildren(...visible(data.reference ?? ""));
    at("breaks").hidden = data.breaks === "lf";
    at("breaks").textContent = `line breaks: ${data.breaks.toUpperCase()}, kept`;
    at("breaks").title = "A browser shows every line break as one kind. Each line gets its own back when it is saved.";
    at("submitted").hidden = data.outcome === null;
    at("submitted").textContent = `submitted: ${OUTCOMES[data.outcome] ?? ""}`;
    showChanges(data);
    typed();
    at("work").hidden = at("actions").hidden = false;
    showState("saved");
    message("");
    if (left.length) {
      const ours = start.base === head.seq || start.sent.includes(head.save_id);
      draft.touch();
      if (!ours) {
        draft.clearTimers();
        draft.head = head;
        draft.setState("conflict");
      }
      if (draft.kept) left.forEach(({ key }) => forget(key));
    }
    editor.focus({ preventScroll: true });
    editor.setSelectionRange(0, 0);
    scrollTo(0, 0);
  } finally {
    loading = false;
  }
}

function saved(answer) {
  now.saved = true;
  showChanges(answer);
}

async function goOn(fresh) {
  const { task, progress } = await ask("/api/next", { new: fresh });
  showProgress(progress);
  if (task === null) {
    draft?.close();
    draft = now = null;
    at("work").hidden = at("actions").hidden = true;
    message("Nothing is left for you. Thank you! Reload the page to see whether there is more.");
    if (lastSubmitted) {
      const back = el("button", { type: "button" }, "Undo the last submit");
      back.addEventListener("click", undo);
      at("message").append(" ", back);
    }
  } else {
    await show(task);
  }
}

async function act(work) {
  if (loading) return;
  loading = true;
  try {
    await work();
  } catch (error) {
    message(error.message === "Failed to fetch" ? "The server cannot be reached; what you typed is kept." : error.message);
  } finally {
    loading = false;
  }
}

const submit = (outcome = changed() ? "edited" : "good") =>
  act(async () => {
    if (!draft || draft.state === "conflict") return;
    if (!(await draft.finish({ kind: "submit", outcome }))) return;
    lastSubmitted = now.task;
    at("undo").hidden = false;
    await goOn(false);
  });

const undo = () =>
  act(async () => {
    if (lastSubmitted === null) return;
    await show(lastSubmitted);
    if (!(await draft.finish({ kind: "reopen", outcome: null }))) return;
    lastSubmitted = null;
    at("undo").hidden = true;
    at("submitted").hidden = true;
    const { progress } = await ask("/api/me");
    showProgress(progress);
  });

const step = (by) =>
  act(async () => {
    if (draft && !(draft.state === "conflict")) await draft.save();
    const tasks = (await ask("/api/tasks")).map(([number]) => number);
    const to = tasks.indexOf(now?.task) + by;
    if (to < 0) return;
    await (to < tasks.length ? show(tasks[to]) : goOn(true));
  });

function replace(text) {
  // By way of the editor's own command, so that Ctrl+Z takes it back.
  editor.focus();
  editor.select();
  if (!document.execCommand(text ? "insertText" : "delete", false, text)) editor.value = text;
  if (editor.value !== text) editor.value = text;
  changedText();
}

function changedText() {
  if (!draft) return;
  typed();
  draft.touch();
}

function askWhy(outcome) {
  const [title, text, needed] = ASKED[outcome];
  at("why-title").textContent = title;
  at("why-text").textContent = text;
  at("note").required = needed;
  at("why").dataset.outcome = outcome;
  at("why").showModal();
  at("note").focus();
}

function onKey(event) {
  if (event.isComposing || event.keyCode === 229) return;
  const mod = MAC ? event.metaKey : event.ctrlKey;
  const typing = event.target.matches?.("textarea, input[type=text]");
  const open = document.querySelector("dialog[open]");
  const done = (work) => {
    event.preventDefault();
    work();
  };
  if (open?.id === "why" && mod && event.key === "Enter") return done(() => at("why-form").requestSubmit());
  if (open || event.repeat) return undefined; // a key held down submits once
  if (mod && event.key === "Enter") return done(() => (event.shiftKey ? undo() : submit()));
  if (mod && event.shiftKey && event.key === "Backspace") return done(() => now && replace(now.response));
  if (mod && event.key === "/") return done(() => at("keys").showModal());
  if (event.key === "?" && !typing) return done(() => at("keys").showModal());
  if (event.altKey && event.key === "PageUp") return done(() => step(-1));
  if (event.altKey && event.key === "PageDown") return done(() => step(1));
  if (event.key === "Escape" && typing) return done(() => at("reset").focus());
  const digit = /^Digit([1-9])$/.exec(event.code);
  if (event.altKey && !mod && digit) {
    const box = at("reasons").querySelectorAll("input")[digit[1] - 1];
    if (box) return done(() => box.click());
  }
  return undefined;
}

function setUp() {
  at("reasons").append(
    ...me.reasons.map((name, index) =>
      el("label", { class: "tag" }, el("input", { type: "checkbox", value: name, "aria-keyshortcuts": `Alt+${index + 1}` }), ` ${name}`),
    ),
  );
  at("guideline-box").hidden = me.guideline.version === 0;
  at("guideline-version").textContent = `version ${me.guideline.version}`;
  at("guideline").replaceChildren(...tree(me.guideline.tree));
  at("key-list").replaceChildren(...KEYS.flatMap(([key, what]) => [el("dt", {}, key), el("dd", {}, what)]));
  at("submit-key").textContent = `${MOD} ⏎`;
  at("to-admin").hidden = !me.admin;
  if (matchMedia("(max-width: 60rem)").matches) at("guideline-box").open = false;
  showProgress(me.progress);
  editor.addEventListener("input", changedText);
  editor.addEventListener("keydown", (event) => (effort.keystrokes += !event.repeat && event.key.length === 1 ? 1 : 0));
  editor.addEventListener("paste", () => (effort.pastes += 1));
  at("reasons").addEventListener("change", () => draft?.touch());
  at("reset").addEventListener("click", () => replace(now.response));
  at("submit").addEventListener("click", () => submit());
  at("previous").addEventListener("click", () => step(-1));
  at("next").addEventListener("click", () => step(1));
  at("undo").addEventListener("click", undo);
  at("help").addEventListener("click", () => at("keys").showModal());
  at("cancel").addEventListener("click", () => at("why").close());
  at("mine").addEventListener("click", () => draft.resolve());
  at("theirs").addEventListener("click", async () => {
    const { text } = draft.head;
    // What is here becomes a revision, too, before the other follows it.
    if (await draft.resolve()) replace(text);
  });
  for (const button of document.querySelectorAll(".outcome")) {
    button.addEventListener("click", () => askWhy(button.dataset.outcome));
  }
  at("why-form").addEventListener("submit", (event) => {
    event.preventDefault();
    at("why").close();
    submit(at("why").dataset.outcome);
  });
  document.addEventListener("keydown", onKey);
  addEventListener("online", () => draft && (draft.dirty ? draft.save() : draft.setState("saved")));
  addEventListener("offline", () => draft?.setState("offline"));
  addEventListener("pagehide", () => draft?.save({ keepalive: true }));
  document.addEventListener("visibilitychange", () => document.hidden && draft?.save({ keepalive: true }));
}

async function start() {
  const asked = /^#(\d+)$/.exec(location.hash);
  try {
    me = await signIn();
    if (!me.edits) return location.replace("/admin");
    setUp();
    if (asked) {
      const tasks = await ask("/api/tasks");
      if (tasks.some(([number]) => number === Number(asked[1]))) return await show(Number(asked[1]));
    }
    await goOn(false);
  } catch (error) {
    at("state").hidden = true;
    message(error.message === "Failed to fetch" ? "The server cannot be reached." : error.message);
  }
  return undefined;
}

start();
