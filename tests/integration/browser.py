"""Headless Chromium as a reader of pages: what it shows, and what is wrong with it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# In the head, before all else: what comes later may fail. The policy that lets no other script run stays as it is.
_PROBE = """
const errors = [];
addEventListener("error", (event) => errors.push(event.message || "did not load"), true);
addEventListener("securitypolicyviolation", (event) => errors.push("policy: " + event.violatedDirective));
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((each) => { each.open = true; });
  document.querySelectorAll("th button").forEach((each) => { each.click(); each.click(); });
  const box = (path) => { const { width, height } = path.getBBox(); return [width, height]; };
  const charts = [...document.querySelectorAll("svg")].map((svg) => ({
    named: svg.getAttribute("aria-labelledby").split(" ").map((id) => document.getElementById(id).textContent),
    boxes: [...svg.querySelectorAll("path:not(.grid)")].map(box),
    size: [svg.getBoundingClientRect().width, svg.getBoundingClientRect().height],
  }));
  const name = (each) => each.tagName + "." + each.getAttribute("class") + ": " + each.textContent.slice(0, 60);
  const outside = (each, box) => {
    const { left, right } = each.getBoundingClientRect();
    return left < box.left - 0.5 || right > box.right + 0.5;
  };
  const overflows = (each) => each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1;
  const wide = [...document.querySelectorAll("body, body *")].filter((each) =>
    each.ownerSVGElement ? each.getBBox && outside(each, each.ownerSVGElement.getBoundingClientRect())
      : outside(each, { left: 0, right: innerWidth }) || overflows(each)).map(name);
  const figures = [...document.querySelectorAll("data")].map((each) =>
    [each.dataset.of || "", each.value, each.dataset.unit, each.textContent]);
  const rows = [...document.querySelectorAll("table.sortable")].map((table) =>
    [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.trim()));
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([...color]) => color.slice(0, 3).map((each) => each / 255)
    .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
    .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (each) => {
    const color = channels(getComputedStyle(each).backgroundColor);
    return color[3] !== 0 || !each.parentElement ? color : behind(each.parentElement);
  };
  const written = (each) => each.getClientRects().length > 0
    && [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  const pale = [...document.querySelectorAll("body *:not(script)")].filter(written).flatMap((each) => {
    const style = getComputedStyle(each);
    const [one, other] = [channels(each.ownerSVGElement ? style.fill : style.color), behind(each)].map(light);
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    return contrast < 4.5 ? [name(each) + " " + contrast.toFixed(2)] : [];
  });
  const images = document.querySelectorAll("img, iframe, object, link").length;
  const found = { width: innerWidth, errors, charts, wide, pale, figures, rows, images, text: document.body.innerText,
                  scripts: document.scripts.length, page: light(behind(document.body)) };
  parent.postMessage(JSON.stringify(found), "*");
});
"""
_FRAME = """<!DOCTYPE html><body><iframe src="page.html" style="border:0;width:{width}px;height:3000px"></iframe>
<pre id="found"></pre><script>
addEventListener("message", (event) => {{ document.getElementById("found").textContent = event.data; }});
</script></body>"""


@dataclass(frozen=True)
class Seen:
    """A page in a window of so many pixels: errors, charts, elements wider than their container, figures, words.

    ``pale`` is text with less than 4.5 : 1 of contrast to what is behind it (WCAG 2.2, 1.4.3), ``page`` the luminance
    of the page itself, 0 for black and 1 for white.
    """

    width: int
    errors: list[str]
    charts: list[dict[str, Any]]
    wide: list[str]
    pale: list[str]
    page: float
    figures: list[tuple[str, str, str, str]]
    rows: list[list[str]]
    images: int
    scripts: int
    text: str


def chromium() -> str:
    """The browser; without one the test is skipped, but not where all checks must run."""
    found = shutil.which("chromium")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs chromium (Debian: apt-get install chromium)")
    return found


def look_at(page: Path, folder: Path, width: int = 360, dark: bool = False) -> Seen:
    """Show a page in a window of that ``width``, dark or light; ``folder`` is for what that takes."""
    browser = chromium()
    digest = base64.b64encode(hashlib.sha256(_PROBE.encode()).digest()).decode()
    text = page.read_text(encoding="utf-8")
    assert text.count("script-src '") == text.count("<head>") == 1
    text = text.replace("script-src '", f"script-src 'sha256-{digest}' '")
    # A policy counts from where it stands.
    head, policy_end, rest = text.partition("<title>")
    (folder / "page.html").write_text(f"{head}<script>{_PROBE}</script>{policy_end}{rest}", encoding="utf-8")
    frame = folder / "frame.html"  # a window of its own would be at least 500 wide
    frame.write_text(_FRAME.format(width=width), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = subprocess.run(
        [browser, *flags, *scheme, "--virtual-time-budget=20000", "--dump-dom", frame.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    found = done.stdout.partition('<pre id="found">')[2].partition("</pre>")[0]
    assert found, done.stderr[-2000:]
    return Seen(**json.loads(html.unescape(found)))
