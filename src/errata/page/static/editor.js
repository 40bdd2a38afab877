// The editor: one response at a time.

import { ask, Refused, signIn } from "./api.js";
import { Draft, forget, leftOver, putAside, same } from "./drafts.js";
import { Effort } from "./effort.js";
import { duration, el, tree, unseen, visible } from "./text.js";

const at = (id) => document.getElementById(id);
const MAC = /Mac|iPhone|iPad/.test(navigator.platform);
const MOD = MAC ? "⌘" : "Ctrl";
const DIGITS = MAC ? "Ctrl" : "Alt"; // on a Mac, Option and a digit write a character
const KEYS = [
  [`${MOD} Enter`, "Submit and go on"],
  [`${MOD} Shift Enter`, "Undo the last submit"],
  [`${DIGITS} Shift 1`, "Flag"],
  [`${DIGITS} Shift 2`, "Skip"],
  [`${DIGITS} Shift 3`, "Cannot be saved"],
  [`${DIGITS} 1 … 9`, "Reason tags"],
  ["Alt Page Up, Alt Page Down", "Previous, next response"],
  ["Ctrl Shift Backspace", "Reset to the response as it was"],
  [`${MOD} Z`, "Undo typing"],
  ["Escape", "Leave the text, or close what is open"],
  ["?", `These keys (while typing: ${MOD} /)`],
];
const STATES = {
  saved: "Saved",
  unsaved: "Unsaved",
  saving: "Saving",
  offline: "Offline: kept in this browser",
  failing: "Not saved: kept in this browser, and tried again",
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
const ORDER = ["flag", "skip", "unsalvageable"]; // as their keys
const MOST = 0.5; // of the words changed: a rewrite

let editor = at("editor");
const effort = new Effort();
let me = null;
let now = null; // the task on the page
let draft = null;
let loading = true;
let running = null;
let lastSubmitted = null;

function message(text, until = "") {
  at("message").hidden = !text;
  at("message").textContent = text;
  at("message").dataset.until = until;
}

const said = (error) => (error instanceof Refused ? error.message : "The server cannot be reached; what you typed is kept.");

const changed = () => editor.value !== now.response;

function content() {
  const reasons = [...at("reasons").querySelectorAll("input:checked")].map((box) => box.value);
  return { text: editor.value, reasons, note: at("note").value, guideline: me.guideline.version, ...effort.counts() };
}

const TROUBLE = ["offline", "failing", "conflict", "refused"];

function showState(state, detail = "") {
  const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const text = (STATES[state] + (state === "saved" && now?.saved ? ` ${time}` : "")) + (detail && `: ${detail}`);
  // A screen reader says when something goes wrong and when that is over, not each save.
  const before = at("said").textContent;
  if (TROUBLE.includes(state) ? before !== text : before && state === "saved") {
    at("said").textContent = state === "saved" ? "" : text;
    at("said-well").textContent = state === "saved" ? "Saved again" : "";
  }
  at("state").dataset.state = state;
  at("state-text").textContent = text;
  at("conflict").hidden = state !== "conflict";
  for (const button of [at("submit"), ...document.querySelectorAll(".outcome")]) button.disabled = state === "conflict";
  if (state === "conflict") at("other").replaceChildren(...visible(draft.head.text));
}

function showOutcome(since) {
  at("submitted").hidden = now.outcome === null;
  at("submitted").textContent = `submitted: ${OUTCOMES[now.outcome] ?? ""}${since ? "; changed since, not submitted" : ""}`;
}

function showGuideline() {
  at("guideline-box").hidden = me.guideline.version === 0;
  at("guideline-version").textContent = `version ${me.guideline.version}`;
  at("guideline").replaceChildren(...tree(me.guideline.tree));
}

function signs(text) {
  return text.trim() ? visible(text, { breaks: true }) : visible(text.replaceAll(" ", "·").replaceAll("\t", "⇥"), { breaks: true });
}

function showChanges({ edits, meter }) {
  if (edits === null) {
    at("changes").replaceChildren(el("p", { class: "soft" }, "Too long to compare while you type. It is saved all the same."));
    at("meter").value = 0;
    at("meter-text").textContent = "";
    at("warning").hidden = true;
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

const EMPTY = { seq: 0, reasons: [], note: "", seconds: 0, keystrokes: 0, pastes: 0 };

/** A field that remembers nothing of the response before: Ctrl+Z must not bring that one back. */
function freshEditor() {
  const fresh = editor.cloneNode();
  editor.replaceWith(fresh);
  editor = fresh;
  editor.addEventListener("input", changedText);
  editor.addEventListener("keydown", (event) => effort.key(event));
  for (const way of ["paste", "drop"]) editor.addEventListener(way, () => (effort.pastes += 1));
}

/** The last of what the browser still holds, if it is not on the server; what is older goes there as history. */
async function recovered(task, head) {
  const left = leftOver(me.drafts, task).filter((each) => {
    if (same(each, head)) forget(each.key);
    return !same(each, head);
  });
  const [last, ...older] = left;
  if (!older.length) return { last, seq: head.seq };
  try {
    const seq = await putAside(task, head.seq, older);
    return { last: last.base === head.seq ? { ...last, base: seq } : last, seq };
  } catch {
    return { last, seq: head.seq }; // they stay in the browser
  }
}

async function show(task) {
  const data = await ask(`/api/tasks/${task}`);
  const head = data.head ?? { ...EMPTY, text: data.response };
  const { last, seq } = await recovered(task, head);
  draft?.close();
  now = data;
  history.replaceState(null, "", `#${task}`);
  draft = new Draft({
    who: me.drafts,
    task,
    seq,
    content,
    unanswered: last?.sent ?? [],
    on: { state: showState, saved, landed },
  });
  const start = last ?? head;
  freshEditor();
  editor.value = start.text;
  effort.start(start);
  showNote(start);
  at("prompt").replaceChildren(...turns(data.prompt));
  at("reference-box").hidden = data.reference === null;
  at("reference").replaceChildren(...visible(data.reference ?? ""));
  at("breaks").hidden = data.breaks === "lf";
  at("breaks").textContent = `line breaks: ${data.breaks.toUpperCase()}, kept`;
  at("breaks").title = "A browser shows every line break as one kind. Each line gets its own back when it is saved.";
  showOutcome(data.head?.kind === "draft");
  showChanges(data);
  typed();
  at("work").hidden = at("actions").hidden = false;
  showState("saved");
  message("");
  if (last) {
    draft.touch();
    if (last.base !== seq && !last.sent.includes(head.save_id)) {
      draft.clearTimers();
      draft.head = { ...head, seq };
      draft.setState("conflict");
    }
    if (draft.kept) forget(last.key);
  }
  editor.focus({ preventScroll: true });
  editor.setSelectionRange(0, 0);
  scrollTo(0, 0);
}

function showNote({ reasons, note }) {
  at("note").value = note;
  for (const box of at("reasons").querySelectorAll("input")) box.checked = reasons.includes(box.value);
}

async function saved(answer, body) {
  now.saved = true;
  showChanges(answer);
  if (body.kind === "draft") showOutcome(true);
  else now.outcome = body.outcome;
  if (at("message").dataset.until === "saved") message("");
  if (answer.guideline !== me.guideline.version) {
    const { guideline } = await ask("/api/me");
    me.guideline = guideline;
    showGuideline();
    at("guideline-box").open = true;
    at("guideline-version").textContent += ", new";
  }
}

function landed({ kind, outcome }) {
  if (kind !== "draft") now.outcome = kind === "submit" ? outcome : null;
  showOutcome(true);
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

/** One thing at a time: a second press while one is under way is none. */
function act(work) {
  if (!loading) running = carryOut(work);
  return running;
}

async function carryOut(work) {
  loading = true;
  try {
    await work();
  } catch (error) {
    message(said(error), "saved");
  } finally {
    loading = false;
  }
}

const submit = (outcome = changed() ? "edited" : "good") =>
  act(async () => {
    if (!draft || draft.state === "conflict") return;
    if (!(await draft.finish({ kind: "submit", outcome }))) {
      const why = draft.state === "offline" ? "the server cannot be reached" : draft.detail;
      if (draft.waits) message(`Not submitted yet: ${why}. What you typed is kept; submit again.`, "saved");
      return;
    }
    remember(now.task);
    showOutcome(draft.dirty > 0);
    if (draft.dirty) return message("You typed on while it was submitted. Submit again to have that, too.");
    editor.readOnly = true; // what is typed now would be for the next one
    try {
      await goOn(false);
    } finally {
      editor.readOnly = false;
    }
  });

/** Which one "undo" means, also after a reload of this tab. */
function remember(task) {
  lastSubmitted = task;
  at("undo").hidden = task === null;
  try {
    sessionStorage.setItem(`errata:submitted:${me.drafts}`, JSON.stringify(task));
  } catch {
    // Forbidden: then until the reload.
  }
}

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(`errata:submitted:${me.drafts}`));
  } catch {
    return null;
  }
}

const undo = () =>
  act(async () => {
    if (lastSubmitted === null) return;
    await show(lastSubmitted);
    if (!(await draft.finish({ kind: "reopen", outcome: null }))) return;
    remember(null);
    showOutcome(false);
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
  if (!draft || editor.readOnly || draft.state === "conflict") return;
  const [title, text, needed] = ASKED[outcome];
  at("why-title").textContent = title;
  at("why-text").textContent = text;
  at("note").required = needed;
  Object.assign(at("why").dataset, { outcome, task: now.task });
  at("why").showModal();
  at("note").focus();
}

function onKey(event) {
  if (event.isComposing || event.keyCode === 229) return undefined;
  const mod = MAC ? event.metaKey : event.ctrlKey;
  const typing = event.target.matches?.("textarea, input[type=text]");
  const open = document.querySelector("dialog[open]");
  const done = (work) => {
    event.preventDefault();
    work();
  };
  if (event.repeat) return undefined; // a key held down submits once
  if (open?.id === "why" && mod && event.key === "Enter") return done(() => at("why-form").requestSubmit());
  if (open) return undefined;
  if (mod && event.key === "Enter") return done(() => (event.shiftKey ? undo() : submit()));
  if (event.ctrlKey && event.shiftKey && event.key === "Backspace") return done(() => now && replace(now.response));
  if (mod && event.key === "/") return done(() => at("keys").showModal());
  if (event.key === "?" && !typing) return done(() => at("keys").showModal());
  if (event.altKey && event.key === "PageUp") return done(() => step(-1));
  if (event.altKey && event.key === "PageDown") return done(() => step(1));
  if (event.key === "Escape" && typing) return done(() => event.target.blur());
  const digit = /^Digit([1-9])$/.exec(event.code)?.[1];
  const held = [event.altKey, event.ctrlKey, event.metaKey].join();
  if (digit && held === (MAC ? "false,true,false" : "true,false,false") && !event.getModifierState("AltGraph")) {
    if (event.shiftKey) return ORDER[digit - 1] && done(() => askWhy(ORDER[digit - 1]));
    const box = at("reasons").querySelectorAll("input")[digit - 1];
    if (box) return done(() => box.click());
  }
  return undefined;
}

const KEY_NAME = MAC ? "Control" : "Alt";

function setUp() {
  at("reasons").append(
    ...me.reasons.map((name, index) =>
      el("label", { class: "tag" }, el("input", { type: "checkbox", value: name, "aria-keyshortcuts": index < 9 && `${KEY_NAME}+${index + 1}` }), ` ${name}`),
    ),
  );
  showGuideline();
  remember(remembered());
  at("key-list").replaceChildren(...KEYS.flatMap(([key, what]) => [el("dt", {}, key), el("dd", {}, what)]));
  at("submit-key").textContent = `${MOD} ⏎`;
  at("to-admin").hidden = !me.admin;
  if (matchMedia("(max-width: 60rem)").matches) at("guideline-box").open = false;
  showProgress(me.progress);
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
    const other = draft.head;
    // What is here becomes a revision, too, before the other follows it.
    if (!(await draft.resolve())) return;
    showNote(other);
    replace(other.text);
  });
  for (const button of document.querySelectorAll(".outcome")) {
    const { outcome } = button.dataset;
    button.addEventListener("click", () => askWhy(outcome));
    button.title = `${DIGITS} Shift ${ORDER.indexOf(outcome) + 1}`;
    button.setAttribute("aria-keyshortcuts", `${KEY_NAME}+Shift+${ORDER.indexOf(outcome) + 1}`);
  }
  at("why-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    at("why").close();
    const { outcome, task } = at("why").dataset;
    await running;
    if (now?.task === Number(task)) submit(outcome);
  });
  document.addEventListener("keydown", onKey);
  const again = () => draft?.dirty && draft.save();
  addEventListener("online", () => draft?.state === "offline" && (again() || draft.setState("saved")));
  addEventListener("offline", () => draft && draft.state !== "conflict" && draft.setState("offline"));
  addEventListener("focus", again); // somebody may have signed in again in another tab
  addEventListener("beforeunload", (event) => draft?.dirty && !draft.kept && event.preventDefault());
  addEventListener("pagehide", () => draft?.save({ keepalive: true }));
  document.addEventListener("visibilitychange", () => document.hidden && draft?.save({ keepalive: true }));
}

async function start() {
  const asked = /^#(\d+)$/.exec(location.hash);
  try {
    me = await signIn();
    if (!me.edits) return location.replace("/admin");
    setUp();
    const tasks = asked ? await ask("/api/tasks") : [];
    if (tasks.some(([number]) => number === Number(asked[1]))) await show(Number(asked[1]));
    else await goOn(false);
  } catch (error) {
    at("state").hidden = true;
    message(error instanceof Refused ? error.message : "The server cannot be reached. Reload the page to try again.");
  } finally {
    loading = false;
  }
  return undefined;
}

start();
