// Requests to the server. The token of a link is behind the #, and goes into a cookie that no script can read.

export class Refused extends Error {
  constructor(status, body) {
    super(body.detail ?? `the server answered ${status}`);
    this.status = status;
    this.body = body;
  }
}

/** What the server answers; throws Refused where it refuses, and TypeError where it cannot be reached. */
export async function ask(path, body, { keepalive = false, timeout = 15000 } = {}) {
  const options = { headers: { "X-Errata": "1" }, credentials: "same-origin", keepalive };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(timeout) });
  let said = {};
  try {
    said = await answer.json();
  } catch {
    // A proxy's page, or nothing.
  }
  if (!answer.ok) throw new Refused(answer.status, said);
  return said;
}

export async function signIn() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    await ask("/api/session", { token });
    history.replaceState(null, "", location.pathname);
  }
  return ask("/api/me");
}
