"""The look of a report."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --raised: #f7f8fa; --ink: #1c2330; --muted: #5d6878; --line: #dfe3e9;
  --first: #0f6cad; --second: #c2570c; --bad: #b3261e;
  --pass: #1a7a3e; --warn: #8a5a00; --fail: #b3261e; --skipped: #5d6878;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #13171e; --raised: #1b212b; --ink: #e4e8ee; --muted: #9aa6b6; --line: #303947;
    --first: #62b1ea; --second: #f0964f; --bad: #ff8a80;
    --pass: #6fce8f; --warn: #e8b454; --fail: #ff8a80; --skipped: #9aa6b6;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); }
main, header, footer { max-width: 1000px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 48px; }
h1 { font-size: 2.1rem; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 14px;
  overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 0 0 10px; }
h3 { font-size: 0.86rem; font-weight: 600; color: var(--muted); margin: 0 0 6px; }
p { margin: 0 0 12px; max-width: 46em; }
a { color: var(--first); }
code { font: 0.9em/1.5 var(--mono); overflow-wrap: anywhere; }
section { padding: 30px 0 22px; border-top: 1px solid var(--line); }
.kicker { font-size: 0.8rem; font-weight: 600; letter-spacing: 0.08em; text-transform: uppercase;
  color: var(--muted); margin: 0 0 8px; }
.verdict { display: flex; flex-wrap: wrap; gap: 8px 14px; align-items: center; margin: 0 0 22px; }
.badge { display: inline-flex; align-items: center; gap: 0.45em; padding: 0.1em 0.7em;
  border: 1.5px solid; border-radius: 99px; font-weight: 650; font-size: 0.86rem;
  white-space: nowrap; }
.verdict .badge { font-size: 1.05rem; padding: 0.2em 0.9em; }
.badge.pass { color: var(--pass); } .badge.warn { color: var(--warn); }
.badge.fail { color: var(--fail); } .badge.skipped { color: var(--skipped); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 6px 22px; margin: 0 0 22px; }
.facts dt { color: var(--muted); } .facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0 0 24px; font-size: 0.92rem; }
nav a { text-decoration: none; } nav a:hover { text-decoration: underline; }
figure { margin: 0 0 18px; }
figcaption, .note { color: var(--muted); font-size: 0.92rem; line-height: 1.5; max-width: 50em; }
figcaption { margin-top: 8px; }
.note { border-left: 3px solid var(--line); padding-left: 12px; }
.plot { overflow-x: auto; }
.plot svg { display: block; width: 100%; min-width: 620px; height: auto; color: var(--ink); }
.plot svg text { font-family: var(--sans) !important; }
img { display: block; width: 100%; height: auto; } img.crisp { image-rendering: pixelated; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 20px; }
.strips { display: grid; grid-template-columns: max-content 1fr; gap: 7px 14px;
  align-items: center; }
.strips > span { font-size: 0.86rem; color: var(--muted); text-align: right; line-height: 1.25; }
.strips small { display: block; font-size: 0.78rem; }
.strips .wide { grid-column: 1 / -1; height: 8px; }
.scale { display: flex; justify-content: space-between; font-size: 0.8rem; color: var(--muted); }
.heads { position: relative; height: 1.5em; font-size: 0.8rem; color: var(--muted); }
.heads span { position: absolute; bottom: 2px; text-align: center; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; line-height: 1.3; }
.thumbs { display: grid; grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: 14px;
  margin: 6px 0 10px; }
.thumbs figure { margin: 0; } .thumbs figcaption { font-size: 0.8rem; margin-top: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 0 0 6px;
  padding: 0; font-size: 0.88rem; color: var(--muted); }
.legend li { display: inline-flex; align-items: center; gap: 6px; overflow-wrap: anywhere; }
.legend svg { width: 20px; height: 12px; flex: none; }
.scroll { overflow-x: auto; margin: 0 0 14px; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; line-height: 1.45; }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: 0.84rem; }
th, td { padding: 9px 16px 9px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td small { display: block; color: var(--muted); font-size: 0.84rem; }
table.findings td:first-child { font-weight: 600; border-left: 3px solid transparent;
  padding-left: 10px; }
table.findings tr.found td { padding-top: 6px; padding-bottom: 6px; }
table.findings tr.fail td { background: color-mix(in srgb, var(--fail) 9%, transparent); }
table.findings tr.warn td { background: color-mix(in srgb, var(--warn) 8%, transparent); }
table.findings tr.fail td:first-child { border-left-color: var(--fail); }
table.findings tr.warn td:first-child { border-left-color: var(--warn); }
table.findings tr.question th { color: var(--ink); font-size: 0.92rem; padding-top: 13px;
  padding-bottom: 5px; }
.told { list-style: none; margin: 0 0 20px; padding: 0; max-width: 50em; }
.told li { padding: 3px 0 3px 12px; border-left: 3px solid var(--line); margin: 0 0 8px;
  overflow-wrap: anywhere; }
.told p { margin: 0 0 2px; max-width: none; }
.told.fail li { border-left-color: var(--fail); }
.told.warn li { border-left-color: var(--warn); }
.told.short li, .told.left li { margin: 0; border-left: 0; padding-left: 0; font-size: 0.92rem; }
.told.left { color: var(--muted); } .told.left b { font-weight: 600; }
table.numbers td { font-variant-numeric: tabular-nums; white-space: nowrap; }
footer { color: var(--muted); font-size: 0.86rem; padding-top: 18px; padding-bottom: 40px;
  border-top: 1px solid var(--line); }
@media (max-width: 600px) {
  header { padding-top: 28px; } h1 { font-size: 1.6rem; }
  .facts { grid-template-columns: 1fr; gap: 0; } .facts dd { margin-bottom: 10px; }
  .strips { gap: 5px 8px; } .strips > span { max-width: 6.2em; font-size: 0.74rem; }
}
@media print { nav { display: none; } section { break-inside: avoid-page; } }
"""
