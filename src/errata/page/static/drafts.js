// Nothing that is typed is lost: it is kept in the browser at once, saved on the server within a second, and
// forgotten by the browser only when the server has said that it is on disk.

import { ask, Refused } from "./api.js";

const QUIET = 350; // ms without typing after which a draft is saved
const LONGEST = 800; // ms after which it is saved although typing goes on
const RETRY = 2000;
const PREFIX = "errata:draft:";
const TAB = crypto.randomUUID();

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

/** The saving of one task. States: saved, unsaved, saving, offline, conflict, refused. */
export class Draft {
  /**
   * @param content gives what is to be saved: text, reasons, note, seconds, keystrokes, pastes.
   * @param on { state(name, detail), saved(answer) }
   */
  constructor({ who, task, seq, content, on }) {
    Object.assign(this, { task, seq, content, on });
    this.key = `${PREFIX}${who}:${task}:${TAB}`;
    this.state = "saved";
    this.dirty = 0; // counts changes
    this.kept = true;
    this.timers = {};
    this.busy = null;
    this.unanswered = []; // names of saves that may have arrived although no answer came
    this.closed = false;
    this.head = null;
  }

  setState(state, detail = "") {
    this.state = state;
    if (!this.closed) this.on.state(state, this.kept ? detail : "this browser keeps no copy");
  }

  /** Something changed. */
  touch() {
    this.dirty += 1;
    this.keepHere();
    if (this.state === "conflict") return;
    if (this.state !== "offline") this.setState("unsaved");
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
  async save(options = {}) {
    this.clearTimers();
    if (this.busy) return this.busy;
    if (!this.dirty || this.state === "conflict") return undefined;
    this.busy = this.send({ kind: "draft" }, options).finally(() => (this.busy = null));
    const answer = await this.busy;
    if (answer && this.dirty) this.timers.quiet = setTimeout(() => this.save(), QUIET);
    return answer;
  }

  /** Submit, or open again: waits for a draft that is on its way. */
  async finish(more) {
    if (this.busy) await this.busy;
    this.clearTimers();
    if (this.state === "conflict") return undefined;
    this.busy = this.send(more, {}).finally(() => (this.busy = null));
    return this.busy;
  }

  async send(more, options) {
    const changes = this.dirty;
    const content = this.content();
    const told = JSON.stringify([this.seq, content.text, content.reasons, content.note, more]);
    // A save whose answer was lost is sent again as it was, under its own name.
    if (this.sent?.told !== told) {
      this.sent = { told, body: { base: this.seq, save_id: crypto.randomUUID(), ...content, ...more } };
      this.unanswered = [...this.unanswered.slice(-20), this.sent.body.save_id];
    }
    if (this.dirty) this.keepHere();
    if (this.state !== "offline") this.setState("saving");
    try {
      const answer = await ask(`/api/tasks/${this.task}/revisions`, this.sent.body, options);
      this.seq = answer.seq;
      this.dirty -= changes;
      this.sent = null;
      this.unanswered = [];
      if (this.dirty) this.keepHere();
      else forget(this.key);
      this.setState(this.dirty ? "unsaved" : "saved");
      if (!this.closed) this.on.saved(answer);
      return answer;
    } catch (error) {
      this.failed(error);
      return undefined;
    }
  }

  failed(error) {
    if (error instanceof Refused && error.status === 409) {
      if (this.unanswered.includes(error.body.head.save_id)) {
        this.seq = error.body.head.seq; // it was this tab that saved
        this.timers.retry = setTimeout(() => this.save(), 0);
        return;
      }
      this.head = error.body.head;
      this.setState("conflict");
    } else if (error instanceof Refused && error.status < 500 && error.status !== 429) {
      this.setState("refused", error.message);
    } else {
      this.setState("offline");
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
