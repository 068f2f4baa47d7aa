"use strict";
(() => {
  const data = JSON.parse(document.getElementById("run-data").textContent);
  const find = (id) => document.getElementById(id);
  const root = document.documentElement;
  const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

  const seconds = (us) => {
    if (us >= 999500) return `${(us / 1e6).toFixed(us >= 9995000 ? 2 : 3)} s`;
    if (us >= 1000) return `${Number((us / 1e3).toPrecision(3))} ms`;
    return `${us} µs`;
  };

  // Theme -------------------------------------------------------------------------------------------------

  const repaints = [];
  const repaint = () => repaints.forEach((paint) => paint());

  const setTheme = (name) => {
    if (name === "system") delete root.dataset.theme;
    else root.dataset.theme = name;
    repaint();
  };

  const theme = find("theme");
  theme.addEventListener("change", () => setTheme(theme.value));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  addEventListener("beforeprint", () => setTheme("light"));
  addEventListener("afterprint", () => setTheme(theme.value));

  // A custom property as its three bytes: only an element's own colour is resolved by the browser.
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color.match(/\d+/g).slice(0, 3).map(Number);
  };

  // Timeline ----------------------------------------------------------------------------------------------

  const FIELDS = 6;
  const LABELS = 34;
  const AXIS = 24;
  const DEEPEST = 20; // Microseconds that are shown at the largest zoom.

  const unpack = (rank) => {
    const count = rank.spans.length / FIELDS;
    const spans = {
      activity: new Uint8Array(count), batch: new Int32Array(count), layer: new Int32Array(count),
      start: new Float64Array(count), length: new Float64Array(count), peer: new Int32Array(count), count,
    };
    let at = 0;
    for (let i = 0; i < count; i += 1) {
      const [activity, batch, layer, step, length, peer] = rank.spans.slice(i * FIELDS, (i + 1) * FIELDS);
      at += step;
      spans.activity[i] = activity;
      spans.batch[i] = batch;
      spans.layer[i] = layer;
      spans.start[i] = at;
      spans.length[i] = length;
      spans.peer[i] = peer;
    }
    return { name: rank.rank, from: rank.start, to: rank.end, spans };
  };

  const timeline = () => {
    const canvas = find("timeline-canvas");
    const says = find("timeline-says");
    const paper = canvas.getContext("2d");
    const ranks = data.ranks.map(unpack);
    const whole = Math.max(1, ...ranks.map((rank) => rank.to));
    const rowHeight = ranks.length <= 12 ? 24 : ranks.length <= 80 ? 12 : 6;
    const gap = rowHeight > 8 ? 2 : 1;
    const order = ["load", "multiply", "encode", "send", "wait", "decode", "other"].map((name) => data.activities.indexOf(name));
    const other = data.activities.indexOf("other");
    let view = { from: 0, to: whole };
    let picked = null;
    let pending = false;
    let picture = null; // What is drawn but for labels and mark, until view, size or colours change.

    const width = () => Math.max(10, canvas.clientWidth - LABELS);
    const scale = () => width() / (view.to - view.from);
    const xOf = (time) => LABELS + (time - view.from) * scale();
    const timeAt = (x) => view.from + (x - LABELS) / scale();

    const look = (from, to) => {
      const span = clamp(to - from, Math.min(DEEPEST, whole), whole);
      const start = clamp(from, 0, whole - span);
      view = { from: start, to: start + span };
      redraw();
    };
    const zoom = (factor, around) => look(around - (around - view.from) * factor, around + (view.to - around) * factor);
    const pan = (share) => look(view.from + share * (view.to - view.from), view.to + share * (view.to - view.from));
    const middle = () => {
      if (!picked) return (view.from + view.to) / 2;
      const { spans } = ranks[picked.rank];
      return clamp(spans.start[picked.span] + spans.length[picked.span] / 2, view.from, view.to);
    };

    // Of each column of pixels, how much each activity takes: so no span is lost and none is drawn too large.
    const covered = (spans, columns, perColumn) => {
      const cover = new Float32Array(columns * data.activities.length);
      for (let i = 0; i < spans.count; i += 1) {
        const begin = (spans.start[i] - view.from) / perColumn;
        const end = begin + spans.length[i] / perColumn;
        if (end <= 0 || begin >= columns) continue;
        const row = spans.activity[i] * columns;
        const last = Math.min(columns - 1, Math.ceil(end) - 1);
        for (let x = Math.max(0, Math.floor(begin)); x <= last; x += 1) {
          cover[row + x] += Math.min(end, x + 1) - Math.max(begin, x);
        }
      }
      return cover;
    };

    const fillRow = (pixels, stride, top, height, rank, colours) => {
      const perColumn = (view.to - view.from) / stride;
      const cover = covered(rank.spans, stride, perColumn);
      const alive = [(rank.from - view.from) / perColumn, (rank.to - view.from) / perColumn];
      for (let x = 0; x < stride; x += 1) {
        let sum = 0;
        for (const activity of order) sum += cover[activity * stride + x];
        if (sum < 0.001 && (x + 1 < alive[0] || x > alive[1])) continue;
        let level = 0;
        let bottom = height;
        for (const activity of order) {
          level += activity === other ? Math.max(0, 1 - sum) : cover[activity * stride + x];
          const up = Math.round(height * (1 - level / Math.max(1, sum)));
          for (let y = up; y < bottom; y += 1) pixels[(top + y) * stride + x] = colours[activity];
          bottom = Math.min(bottom, up);
        }
      }
    };

    const packed = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;

    const fill = (ratio) => {
      const image = paper.createImageData(Math.max(1, Math.round(width() * ratio)), Math.round(ranks.length * rowHeight * ratio));
      const pixels = new Uint32Array(image.data.buffer);
      const colours = data.activities.map((name) => packed(colour(name)));
      ranks.forEach((rank, number) => {
        const top = Math.round(number * rowHeight * ratio);
        fillRow(pixels, image.width, top, Math.round((rowHeight - gap) * ratio), rank, colours);
      });
      return image;
    };

    const paint = () => {
      pending = false;
      const ratio = devicePixelRatio || 1;
      const height = ranks.length * rowHeight + AXIS;
      canvas.style.height = `${height}px`;
      canvas.width = Math.round((width() + LABELS) * ratio);
      canvas.height = Math.round(height * ratio);
      picture = picture || fill(ratio);
      paper.putImageData(picture, Math.round(LABELS * ratio), 0);
      paper.setTransform(ratio, 0, 0, ratio, 0, 0);
      write();
      mark();
    };
    const draw = () => {
      if (!pending) requestAnimationFrame(paint);
      pending = true;
    };
    const redraw = () => {
      picture = null;
      draw();
    };

    const css = (name) => `rgb(${colour(name).join(",")})`;

    const write = () => {
      paper.font = "11px system-ui, sans-serif";
      paper.fillStyle = css("muted");
      paper.textBaseline = "middle";
      paper.textAlign = "right";
      const every = Math.ceil(12 / rowHeight);
      ranks.forEach(({ name }, rank) => {
        if (rank % every === 0) paper.fillText(String(name), LABELS - 6, rank * rowHeight + (rowHeight - gap) / 2);
      });
      const bottom = ranks.length * rowHeight;
      const step = niceStep((view.to - view.from) / Math.max(2, width() / 110));
      paper.strokeStyle = css("muted");
      paper.textBaseline = "top";
      for (let tick = Math.ceil(view.from / step) * step; tick <= view.to; tick += step) {
        const x = xOf(tick);
        paper.beginPath();
        paper.moveTo(x, bottom);
        paper.lineTo(x, bottom + 5);
        paper.stroke();
        paper.textAlign = x < LABELS + 20 ? "left" : x > LABELS + width() - 30 ? "right" : "center";
        paper.fillText(tickText(tick, step), x, bottom + 8);
      }
    };
    const niceStep = (least) => {
      const power = 10 ** Math.floor(Math.log10(least));
      return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
    };
    const tickText = (tick, step) => `${(tick / 1e6).toFixed(clamp(-Math.floor(Math.log10(step / 1e6)), 0, 6))} s`;

    const mark = () => {
      if (!picked) return;
      const { spans } = ranks[picked.rank];
      const x = xOf(spans.start[picked.span]);
      const wide = Math.max(4, spans.length[picked.span] * scale());
      paper.save();
      paper.beginPath();
      paper.rect(LABELS - 2, 0, width() + 4, ranks.length * rowHeight);
      paper.clip();
      paper.strokeStyle = css("page");
      paper.lineWidth = 4;
      paper.strokeRect(x - 1, picked.rank * rowHeight, wide + 2, rowHeight - gap);
      paper.strokeStyle = css("text");
      paper.lineWidth = 2;
      paper.strokeRect(x - 1, picked.rank * rowHeight, wide + 2, rowHeight - gap);
      paper.restore();
    };

    const told = ({ rank, span }) => {
      const { spans } = ranks[rank];
      const layer = spans.layer[span];
      const waits = data.activities[spans.activity[span]] === "wait";
      const words = [`rank ${ranks[rank].name}`, layer ? `${data.merged ? "from layer" : "layer"} ${layer}` : "start or end"];
      if (spans.batch[span] >= 0 && layer) words.push(`batch ${spans.batch[span]}`);
      words.push(`${data.activities[spans.activity[span]]} ${seconds(spans.length[span])}`);
      if (data.traced) words.push(`at ${(spans.start[span] / 1e6).toFixed(6)} s`);
      if (spans.peer[span] >= 0) words.push(`${waits ? "for" : "with"} rank ${spans.peer[span]}`);
      return words.join(", ");
    };
    const pick = (rank, span) => {
      if (span < 0) return;
      picked = { rank, span };
      says.textContent = told(picked);
      draw();
    };

    // The span that holds a time, or else the one nearest to it.
    const nearest = ({ spans }, time) => {
      let best = -1;
      let least = Infinity;
      for (let i = 0; i < spans.count; i += 1) {
        const off = Math.max(0, spans.start[i] - time, time - spans.start[i] - spans.length[i]);
        if (off < least || (off === 0 && least === 0 && spans.length[i] < spans.length[best])) {
          least = off;
          best = i;
        }
      }
      return best;
    };
    const show = () => {
      const { spans } = ranks[picked.rank];
      const start = spans.start[picked.span];
      const size = view.to - view.from;
      if (start < view.from || start + Math.min(size, spans.length[picked.span]) > view.to) look(start - size * 0.3, start + size * 0.7);
    };
    const step = (by) => {
      if (!picked) {
        pick(0, nearest(ranks[0], view.from));
        return;
      }
      pick(picked.rank, clamp(picked.span + by, 0, ranks[picked.rank].spans.count - 1));
      show();
    };
    const climb = (by) => {
      const rank = picked ? clamp(picked.rank + by, 0, ranks.length - 1) : 0;
      pick(rank, nearest(ranks[rank], middle()));
    };

    const all = () => look(0, whole);
    const deeds = { in: () => zoom(0.5, middle()), out: () => zoom(2, middle()), left: () => pan(-0.5), right: () => pan(0.5), all };
    document.querySelectorAll("#timeline [data-do]").forEach((button) => button.addEventListener("click", deeds[button.dataset.do]));
    const keys = {
      ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => climb(-1), ArrowDown: () => climb(1),
      "+": deeds.in, "=": deeds.in, "-": deeds.out, 0: all, Home: all, PageUp: deeds.left, PageDown: deeds.right,
    };
    canvas.addEventListener("keydown", (event) => {
      const deed = event.ctrlKey || event.metaKey || event.altKey ? null : keys[event.key];
      if (!deed) return;
      event.preventDefault();
      deed();
    });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      zoom(event.deltaY > 0 ? 1.25 : 0.8, timeAt(event.offsetX));
    }, { passive: false });

    let drag = null;
    canvas.addEventListener("pointerdown", (event) => {
      drag = { x: event.offsetX, from: view.from };
      canvas.setPointerCapture(event.pointerId);
    });
    ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(name, () => { drag = null; }));
    canvas.addEventListener("pointermove", (event) => {
      if (drag) {
        const from = drag.from - (event.offsetX - drag.x) / scale();
        look(from, from + view.to - view.from);
        return;
      }
      point(event);
    });
    const point = (event) => {
      const rank = Math.floor(event.offsetY / rowHeight);
      if (rank >= 0 && rank < ranks.length && event.offsetX >= LABELS) pick(rank, nearest(ranks[rank], timeAt(event.offsetX)));
    };
    canvas.addEventListener("click", point);

    if (data.merged) {
      find("timeline-note").append(` To keep the page small, what took less than ${seconds(data.merged)} is drawn together.`);
    }
    new ResizeObserver(redraw).observe(canvas);
    repaints.push(() => {
      picture = null;
      paint();
    });
    paint();
  };

  // Traffic -----------------------------------------------------------------------------------------------

  const traffic = () => {
    const frame = find("traffic-map");
    if (!frame) return;
    const cursor = frame.querySelector(".cursor");
    const size = data.traffic.length;
    let at = null;

    const named = (index) => {
      if (data.side === 1) return `rank ${index}`;
      return `ranks ${index * data.side} to ${Math.min(data.workers, (index + 1) * data.side) - 1}`;
    };
    const show = (source, target) => {
      at = [clamp(source, 0, size - 1), clamp(target, 0, size - 1)];
      cursor.setAttribute("y", at[0]);
      cursor.setAttribute("x", at[1]);
      cursor.setAttribute("visibility", "visible");
      find("traffic-says").textContent = `${named(at[0])} to ${named(at[1])}: ${data.traffic[at[0]][at[1]].toLocaleString("en")} bytes`;
    };
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    frame.addEventListener("keydown", (event) => {
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      if (at) show(at[0] + move[0], at[1] + move[1]);
      else show(0, 0);
    });
    const point = (event) => {
      const box = frame.querySelector("svg").getBoundingClientRect();
      show(Math.floor(((event.clientY - box.top) / box.height) * size), Math.floor(((event.clientX - box.left) / box.width) * size));
    };
    frame.addEventListener("pointermove", point);
    frame.addEventListener("click", point);
  };

  // Layers: a slider over the charts reads the table ------------------------------------------------------

  const layers = () => {
    const plots = find("layer-plots");
    const slider = find("layer-slider");
    const table = find("layer-table").querySelector("table");
    const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);

    const read = (heading, cell) => {
      const value = Number(cell.replaceAll(",", ""));
      if (!value) return "";
      return `${heading} ${data.activities.includes(heading) ? seconds(Math.round(value * 1e6)) : cell}`;
    };
    const show = () => {
      const layer = Number(slider.value);
      plots.querySelectorAll(".cursor").forEach((cursor) => {
        cursor.setAttribute("x", layer - 1);
        cursor.setAttribute("visibility", "visible");
      });
      const cells = [...table.tBodies[0].rows[layer].cells].map((cell) => cell.textContent);
      const words = cells.map((cell, number) => read(headings[number], cell));
      find("layer-says").textContent = words.filter(Boolean).join(", ");
    };
    slider.addEventListener("input", show);
    plots.querySelectorAll("svg").forEach((chart) => {
      const point = (event) => {
        const box = chart.getBoundingClientRect();
        const most = Number(slider.max);
        slider.value = clamp(1 + Math.floor(((event.clientX - box.left) / box.width) * most), 1, most);
        show();
      };
      chart.addEventListener("pointermove", point);
      chart.addEventListener("click", point);
    });
  };

  // Tables that sort by a column --------------------------------------------------------------------------

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const value = Number(cell.dataset.v ?? cell.textContent.replaceAll(",", ""));
    return Number.isNaN(value) ? -1 : value;
  };
  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (table.tBodies[0].rows[0].cells[column].querySelector("svg")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => (down ? -1 : 1) * (valueOf(a, column) - valueOf(b, column)));
        table.tBodies[0].append(...rows);
      });
    });
  };

  timeline();
  traffic();
  layers();
  document.querySelectorAll("table[data-sortable]").forEach(sortable);
})();
