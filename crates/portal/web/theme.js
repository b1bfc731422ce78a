// Sets the chosen theme before the first paint; without a choice the system's.
"use strict";
try {
  const theme = localStorage.getItem("millwright.theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be closed to us; the system's theme will do.
}
