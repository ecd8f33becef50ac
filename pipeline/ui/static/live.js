// Renews the page's content every ten seconds, unless somebody reads with the keyboard, selects text or pauses it.
"use strict";
{
  const pause = document.getElementById("pause");
  const says = (isPaused) => (pause.textContent = isPaused ? "Resume updates" : "Pause updates");
  let isPaused = false;
  pause.hidden = false;
  says(false);
  pause.addEventListener("click", () => says((isPaused = !isPaused)));
  const renew = async () => {
    const main = document.getElementById("main");
    if (isPaused || document.hidden || main.contains(document.activeElement) || String(getSelection())) return;
    const answer = await fetch(location.href).catch(() => null);
    const page = answer && answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
    const seen = document.getElementById("seen");
    if (page === null) {
      seen.textContent = "This page's server does not answer: what is shown is old.";
      seen.className = "notice bad";
      return;
    }
    for (const id of ["main", "seen", "state"]) {
      const [before, after] = [document.getElementById(id), page.getElementById(id)];
      if (before && after) before.replaceWith(document.adoptNode(after));
    }
  };
  setInterval(renew, 10_000);
}
