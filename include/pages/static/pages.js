// Follows Airflow's theme, and opens links to Airflow's own pages outside of its frame.
"use strict";

const preferred = matchMedia("(prefers-color-scheme: dark)");

function followTheme() {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // A browser that keeps nothing: as the system has it.
  }
  const known = chosen === "light" || chosen === "dark";
  document.documentElement.dataset.theme = known ? chosen : preferred.matches ? "dark" : "light";
}

followTheme();
addEventListener("storage", followTheme);
preferred.addEventListener("change", followTheme);

// Airflow's frame may neither open windows nor leave its page: the page around it does so for it.
function follow(event) {
  const link = event.target.closest?.("a[data-airflow]");
  if (!link || parent === window || event.button > 1) return;
  event.preventDefault();
  const outside = parent.document.createElement("a");
  outside.href = link.href;
  if (event.button === 1 || event.ctrlKey || event.metaKey) outside.target = "_blank";
  parent.document.body.append(outside);
  outside.click();
  outside.remove();
}

addEventListener("click", follow);
addEventListener("auxclick", follow);
