// Once a frame: thousands of events that were missed are shown as one change, not as thousands.

const HIDDEN_MS = 250;

/** At the next frame; in a hidden tab, which has none, after a moment. */
export function soon(run: () => void): void {
  let done = false;
  const once = () => {
    if (done) return;
    done = true;
    run();
  };
  requestAnimationFrame(once);
  setTimeout(once, HIDDEN_MS);
}
