"""Style sheet of the evaluation page: one column on a phone, a grid on a desk, light and dark."""

STYLE = """
:root{--paper:#fff;--ink:#1b1f24;--soft:#5b6570;--faint:#e4e7eb;--line:#b9c0c8;--card:#f7f8fa;
--s0:#0b63b5;--s1:#d1550a;--s2:#0a8a62;--s3:#a8459b;--s4:#8a6d00;--s5:#3b97d3;--s6:#b3261e;--rest:#a3abb4;
--good:#0a7a50;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--soft:#a4adb7;--faint:#2a2f36;--line:#59626d;
--card:#1b1f25;--s0:#6cb4ff;--s1:#ff9a57;--s2:#4fd0a4;--s3:#e08fd6;--s4:#dcbc4a;--s5:#9fd3f5;--s6:#ff8a80;
--rest:#6d7680;--good:#4fd0a4;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Noto Sans","DejaVu Sans",sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 20px 64px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 8px}h2{font-size:1.25rem;margin:40px 0 4px}
p{margin:0 0 12px;max-width:72ch}.lead,section>p{color:var(--soft)}
.small{font-size:.82rem;color:var(--soft);margin:4px 0}
header ul:not(.legend){margin:0 0 8px;padding-left:20px;max-width:72ch}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(370px,100%),1fr));gap:16px;align-items:start}
figure{margin:0;padding:12px 14px;background:var(--card);border:1px solid var(--faint);border-radius:8px;min-width:0}
@media(min-width:820px){figure.wide{grid-column:span 2}figure.wide td{white-space:nowrap}}
figcaption{font-weight:600;margin-bottom:6px;overflow-wrap:anywhere}
svg{display:block;width:100%;max-width:460px;height:auto}
svg text{font-size:11.5px;fill:var(--ink)}svg .tick{fill:var(--soft);font-size:11px}
svg .axis,svg .note{fill:var(--soft);font-size:12px}
svg .grid{stroke:var(--faint)}svg .rule{stroke:var(--line)}svg .zero{stroke:var(--soft);stroke-dasharray:3 3}
svg .diagonal{stroke:var(--line);stroke-dasharray:4 4}
svg .name.s0,svg .value.s0{font-weight:700}svg .name.bound,svg .value.bound{fill:var(--soft);font-style:italic}
svg .value{font-variant-numeric:tabular-nums}
.line{fill:none;stroke-width:1.6}.line.s0{stroke-width:3}.line.rest{stroke-width:1;opacity:.7}
.whisker{stroke-width:2;opacity:.55}.single{fill:var(--soft);opacity:.6}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}.s4{--c:var(--s4)}.s5{--c:var(--s5)}
.s6{--c:var(--s6)}.rest{--c:var(--rest)}.bound{--c:var(--line)}
.dot{fill:var(--c)}.line,.whisker{stroke:var(--c)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 16px;margin:0 0 12px;padding:0;font-size:.88rem}
.legend li{display:flex;align-items:center;gap:6px}.key{width:18px;height:4px;border-radius:2px;background:var(--c)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.84rem;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--faint);vertical-align:top}
thead th{color:var(--soft);font-weight:600;white-space:nowrap}tbody th{font-weight:400}
.mine th,.mine td{font-weight:700}td small{color:var(--soft);white-space:nowrap}
table.wide{min-width:760px}table.wide tbody th{white-space:nowrap}
.met{color:var(--good);font-weight:600}.missed{color:var(--bad);font-weight:600}
details{margin-top:6px;font-size:.88rem}summary{cursor:pointer;color:var(--soft)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 16px;font-size:.9rem}dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}code{font-size:.86em}
"""
