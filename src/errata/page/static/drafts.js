// Nothing that is typed is lost: it is kept in the browser at once, saved on the server within a second, and
// forgotten by the browser only when the server has said that it is on disk.

import { ask, Refused } from "./api.js";

const QUIET = 350; // ms without typing after which a draft is saved
const LONGEST = 800; // ms after which it is saved although typing goes on
const RETRY = 2000;
const KEEPALIVE = 60_000; // bytes; browsers refuse more in a request that outlives its page
const PREFIX = "errata:draft:";

/** A name that nothing else has; crypto.randomUUID is there with https only. */
function newName() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false; // full or forbidden
  }
}

function storedKeys() {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}

/** What this browser still holds of a task, the newest first. */
export function leftOver(who, task) {
  const found = [];
  for (const key of storedKeys()) {
    if (!key.startsWith(`${PREFIX}${who}:${task}:`)) continue;
    try {
      found.push({ key, ...JSON.parse(localStorage.getItem(key)) });
    } catch {
      localStorage.removeItem(key);
    }
  }
  return found.sort((a, b) => b.at - a.at);
}

export function forget(key) {
  if (storedKeys().includes(key)) localStorage.removeItem(key);
}

/** Whether two versions say the same. */
export function same(one, other) {
  return one.text === other.text && `${one.reasons}` === `${other.reasons}` && one.note === other.note;
}

const saveOf = (task, body, options) => ask(`/api/tasks/${task}/revisions`, body, options);

/** Put what was left over of other tabs on the server, the oldest first; it becomes history there. Gives the last seq. */
export async function putAside(task, seq, drafts) {
  let base = seq;
  for (const { key, text, reasons, note, guideline, seconds, keystrokes, pastes } of drafts.toReversed()) {
    const body = { text, reasons, note, guideline, seconds, keystrokes, pastes };
    base = (await saveOf(task, { base, save_id: newName(), kind: "draft", ...body })).seq;
    forget(key);
  }
  return base;
}

/** The saving of one task. States: saved, unsaved, saving, offline, failing, conflict, refused. */
export class Draft {
  /**
   * @param content gives what is to be saved: text, reasons, note, guideline, seconds, keystrokes, pastes.
   * @param unanswered names of saves of before that may still arrive.
   * @param on { state(name, detail), saved(answer), landed(head) }
   */
  constructor({ who, task, seq, content, unanswered, on }) {
    Object.assign(this, { task, seq, content, unanswered, on });
    this.key = `${PREFIX}${who}:${task}:${newName()}`;
    this.state = "saved";
    this.dirty = 0; // counts changes
    this.kept = true;
    this.timers = {};
    this.busy = null;
    this.closed = false;
    this.head = null;
  }

  /** Whether it is tried again until the server is there, or can write. */
  get waits() {
    return ["offline", "failing"].includes(this.state);
  }

  setState(state, detail = "") {
    this.state = state;
    this.detail = detail;
    if (!this.closed) this.on.state(state, this.kept || !this.dirty ? detail : "this browser keeps no copy");
  }

  /** Something changed. */
  touch() {
    this.dirty += 1;
    this.keepHere();
    if (this.state === "conflict") return;
    if (!this.waits) this.setState("unsaved");
    this.saveSoon();
  }

  saveSoon() {
    clearTimeout(this.timers.quiet);
    this.timers.quiet = setTimeout(() => this.save(), QUIET);
    this.timers.longest ??= setTimeout(() => this.save(), LONGEST);
  }

  keepHere() {
    this.kept = keep(this.key, { base: this.seq, at: Date.now(), sent: this.unanswered, ...this.content() });
  }

  clearTimers() {
    for (const name of Object.keys(this.timers)) clearTimeout(this.timers[name]);
    this.timers = {};
  }

  /** Save what is unsaved; the same save sent twice is one revision. */
  async save({ keepalive = false } = {}) {
    this.clearTimers();
    if (this.busy) return this.busy;
    if (!this.dirty || this.state === "conflict") return undefined;
    this.busy = this.send({ kind: "draft" }, keepalive).finally(() => (this.busy = null));
    return this.busy;
  }

  /** Submit, or open again: waits for a draft that is on its way. */
  async finish(more) {
    if (this.busy) await this.busy;
    this.clearTimers();
    if (this.state === "conflict") return undefined;
    this.busy = this.send(more, false).finally(() => (this.busy = null));
    return this.busy;
  }

  async send(more, keepalive) {
    const changes = this.dirty;
    const content = this.content();
    const told = JSON.stringify([this.seq, content.text, content.reasons, content.note, more]);
    // A save whose answer was lost is sent again as it was, under its own name.
    if (this.sent?.told !== told) {
      this.sent = { told, body: { base: this.seq, save_id: newName(), ...content, ...more } };
      this.unanswered = [...this.unanswered.slice(-20), this.sent.body.save_id];
    }
    if (this.dirty) this.keepHere();
    if (!this.waits) this.setState("saving");
    try {
      const { body } = this.sent;
      const small = keepalive && new Blob([JSON.stringify(body)]).size < KEEPALIVE;
      const answer = await saveOf(this.task, body, { keepalive: small });
      this.seq = answer.seq;
      this.dirty -= changes;
      this.sent = null;
      this.unanswered = [];
      if (this.dirty) this.keepHere();
      else forget(this.key);
      this.setState(this.dirty ? "unsaved" : "saved");
      if (this.dirty) this.saveSoon();
      if (!this.closed) this.on.saved(answer, body);
      return answer;
    } catch (error) {
      const head = error instanceof Refused && error.status === 409 && error.body.head;
      if (head && (this.unanswered.includes(head.save_id) || (head.kind === "draft" && same(head, content)))) {
        // It was this page that saved, or somebody who wrote the same: go on from there.
        this.seq = head.seq;
        if (!this.closed) this.on.landed(head);
        return this.send(more, keepalive);
      }
      this.failed(error, head);
      return undefined;
    }
  }

  failed(error, head) {
    if (head) {
      this.head = head;
      this.setState("conflict");
    } else if (error instanceof Refused && error.status < 500 && error.status !== 429) {
      this.setState("refused", error.message);
    } else {
      if (error instanceof Refused) this.setState("failing", error.message);
      else this.setState("offline");
      if (this.dirty) this.timers.retry = setTimeout(() => this.save(), RETRY);
    }
  }

  /** After a conflict: write what is here after the other version. */
  resolve() {
    this.seq = this.head.seq;
    this.head = null;
    this.dirty += 1;
    this.setState("unsaved");
    return this.save();
  }

  /** Another task comes on the page; what is unsaved of this one goes on being saved behind it. */
  close() {
    const last = this.content();
    this.content = () => last;
    this.closed = true;
    this.save({ keepalive: true });
  }
}
