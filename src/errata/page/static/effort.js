// What an edit took: active seconds, keystrokes, pastes.

const IDLE = 15; // seconds without a sign of life after which the clock stands still

export class Effort {
  constructor() {
    this.start({ seconds: 0, keystrokes: 0, pastes: 0 });
    this.last = 0;
    for (const sign of ["keydown", "pointerdown", "pointermove", "wheel", "input"]) {
      document.addEventListener(sign, () => this.alive(), { passive: true, capture: true });
    }
  }

  /** A key that writes or deletes; a key held down is one, and so is what an input method makes of one. */
  key(event) {
    const command = (event.ctrlKey || event.metaKey) && !event.getModifierState("AltGraph");
    const writes = event.key.length === 1 || ["Backspace", "Delete", "Enter", "Process", "Unidentified"].includes(event.key);
    if (writes && !command && !event.repeat) this.keystrokes += 1;
  }

  start({ seconds, keystrokes, pastes }) {
    Object.assign(this, { seconds, keystrokes, pastes });
    this.last = performance.now();
  }

  alive() {
    const now = performance.now();
    const passed = (now - this.last) / 1000;
    if (document.visibilityState === "visible" && passed < IDLE) this.seconds += passed;
    this.last = now;
  }

  counts() {
    return { seconds: Math.round(this.seconds * 10) / 10, keystrokes: this.keystrokes, pastes: this.pastes };
  }
}
