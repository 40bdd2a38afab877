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
