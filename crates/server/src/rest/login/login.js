"use strict";

const told = document.getElementById("told");
const field = document.getElementById("token");

/** Where to go afterwards: a page of this server, whatever the address says. */
function destination() {
  const wanted = new URLSearchParams(location.search).get("next") || "/docs";
  try {
    const url = new URL(wanted, location.origin);
    return url.origin === location.origin ? url.href : "/docs";
  } catch {
    return "/docs";
  }
}

async function send(path, headers) {
  try {
    const answer = await fetch(path, { method: "POST", headers });
    if (answer.ok) return true;
    const problem = await answer.json().catch(() => ({}));
    told.textContent = problem.detail || "The server answered with status " + answer.status + ".";
  } catch {
    told.textContent = "The server does not answer.";
  }
  return false;
}

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = field.value.trim();
  field.value = "";
  if (await send("/v1/login", { authorization: "Bearer " + token })) location.replace(destination());
});

document.getElementById("logout").addEventListener("click", async () => {
  if (await send("/v1/logout", {})) told.textContent = "Logged out.";
});
