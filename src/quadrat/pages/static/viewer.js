"use strict";
/* The page of a slide: the picture in deep zoom, its objects over it, and what a reader may change. */

(async () => {
  const $ = (id) => document.getElementById(id);
  /* where all comes from: the server, or the files of a capsule (capsule.js) */
  const got = (path, how) => fetch(path).then((r) => (r.ok ? r[how]() : r.text().then((text) => { throw new Error(text); })));
  const source = window.quadratSource ?? {
    about: () => got("about.json", "json"),
    image: (level, x, y) => `image/${level}/${x}_${y}.jpg`,
    things: (key) => got(`things/${key}`, "arrayBuffer"),
    pick: (x, y, reach) => got(`pick?x=${x}&y=${y}&reach=${reach}&${chosen()}`, "json"),
    heat: () => got(`heat?${chosen()}`, "arrayBuffer"),
  };
  let about;
  try {
    about = await source.about();
  } catch (error) {
    $("gone").textContent = error.message;
    $("gone").hidden = false;
    return;
  }
  const narrow = matchMedia("(max-width: 760px)").matches;
  if (narrow) document.querySelector("#panel > details").open = false;

  /* ---- the picture ---- */
  const viewer = OpenSeadragon({
    element: $("slide"), drawer: "canvas", showNavigationControl: false,
    showNavigator: !narrow && !about.gone, navigatorPosition: "TOP_RIGHT", navigatorSizeRatio: 0.16,
    animationTime: 0.5, springStiffness: 8, maxZoomPixelRatio: 16, minZoomImageRatio: 0.5, visibilityRatio: 0.2,
    imageLoaderLimit: 6, gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    tileSources: {
      width: about.width, height: about.height, tileSize: about.image_tile, tileOverlap: 0,
      minLevel: 0, maxLevel: about.finest ?? about.levels - 1,
      getLevelScale: (level) => 2 ** (level - about.levels + 1),
      getTileUrl: source.image,
      ...(about.gone ? { tileExists: () => false } : {}),
    },
  });
  if (about.gone) {
    $("gone").textContent = `The picture cannot be shown: ${about.gone}. What was found is drawn on grey.`;
    $("gone").hidden = false;
  }

  /* ---- what is shown ---- */
  const classes = about.classes;
  const style = { colours: [], on: classes.map(() => true), least: 0, fill: about.kind === "objects" ? 0 : 0.28 };
  let version = 0, opacity = 0.9, picked = null, heat = null;
  const restyle = () => { version++; redraw(); };
  const colour = () => {
    style.colours = classes.map((one) => ($("safe").checked ? one.safe : one.own));
    classes.forEach((one, i) => { $(`class${i}`).nextElementSibling.style.background = `rgb(${style.colours[i].join(",")})`; });
    restyle();
  };
  $("kind").textContent = about.kind;
  classes.forEach((one, i) => {
    const label = document.createElement("label"), box = document.createElement("input");
    const swatch = document.createElement("i"), name = document.createElement("span"), count = document.createElement("data");
    box.type = "checkbox"; box.checked = true; box.id = `class${i}`;
    name.textContent = one.name; count.textContent = one.count.toLocaleString("en");
    label.append(box, swatch, name, count);
    $("classes").append(label);
    box.addEventListener("change", () => { style.on[i] = box.checked; restyle(); wanted(); });
  });

  /* ---- tiles of objects ---- */
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
  canvas.className = "things";
  viewer.canvas.append(canvas);
  const side = about.tile, kept = new Map(), MOST = 160;
  const counters = { drawn: 0, missing: 0, loaded: 0 };
  let waiting = [], loading = 0, coarsest = about.least_level;
  while (side * 2 ** coarsest < Math.max(about.width, about.height)) coarsest++;

  function tileAt(level, x, y) {
    const key = `${level}/${x}_${y}`;
    let tile = kept.get(key);
    if (tile) { kept.delete(key); kept.set(key, tile); return tile; }
    tile = { key, data: null, canvas: null, version: -1, asked: false };
    kept.set(key, tile);
    for (const [old, one] of kept) {
      if (kept.size <= MOST) break;
      if (!one.asked || one.data) kept.delete(old);
    }
    return tile;
  }
  function load() {
    while (loading < 6 && waiting.length) {
      const tile = waiting.pop();
      if (tile.asked) continue;
      tile.asked = true;
      loading++;
      source.things(tile.key).then((data) => { tile.data = Vectors.parse(data); counters.loaded++; }).catch(() => { setTimeout(() => { tile.asked = false; redraw(); }, 2000); }).finally(() => { loading--; load(); redraw(); });
    }
  }
  function bitmapOf(tile, end) {
    if (tile.data && tile.version !== version && (performance.now() < end || !tile.canvas)) {
      tile.canvas ||= document.createElement("canvas");
      Vectors.draw(tile.data, tile.canvas, side, style);
      tile.version = version;
    }
    return tile.canvas;
  }

  /* ---- drawing ---- */
  let asked = false;
  function redraw() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  }
  function place() {
    const viewport = viewer.viewport, corner = viewport.pixelFromPoint(new OpenSeadragon.Point(0, 0), true);
    const other = viewport.pixelFromPoint(new OpenSeadragon.Point(1, 0), true);
    return { x: corner.x, y: corner.y, zoom: (other.x - corner.x) / about.width };
  }
  function draw() {
    if (!viewer.world.getItemCount()) return;
    const ratio = Math.min(devicePixelRatio || 1, 2), box = viewer.container;
    const width = Math.round(box.clientWidth * ratio), height = Math.round(box.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    else context.clearRect(0, 0, width, height);
    const at = place(), x0 = at.x * ratio, y0 = at.y * ratio, zoom = at.zoom * ratio;
    let late = false;
    if (heat && $("heat")?.checked) drawHeat(x0, y0, zoom);
    if ($("things").checked) late = drawThings(x0, y0, zoom, width, height);
    if (picked) drawPicked(x0, y0, zoom, ratio);
    counters.drawn++;
    scaleBar(at.zoom);
    if (late) redraw();
  }
  function drawThings(x0, y0, zoom, width, height) {
    const level = Math.max(about.least_level, Math.min(coarsest, Math.round(Math.log2(1 / zoom))));
    const span = side * 2 ** level, step = span * zoom, end = performance.now() + 8;
    const cols = [Math.max(0, Math.floor(-x0 / step)), Math.min(Math.ceil(about.width / span) - 1, Math.floor((width - x0) / step))];
    const rows = [Math.max(0, Math.floor(-y0 / step)), Math.min(Math.ceil(about.height / span) - 1, Math.floor((height - y0) / step))];
    let late = false, missing = 0;
    waiting = [];
    context.globalAlpha = opacity;
    for (let y = rows[0]; y <= rows[1]; y++) for (let x = cols[0]; x <= cols[1]; x++) {
      const tile = tileAt(level, x, y), bitmap = bitmapOf(tile, end);
      if (tile.data && tile.version !== version) late = true;
      if (bitmap) { put(bitmap, 0, 0, side, x0 + x * step, y0 + y * step, step); continue; }
      missing++;
      if (!tile.asked) waiting.push(tile);
      for (let up = 1; up <= 2; up++) {
        const parent = kept.get(`${level + up}/${x >> up}_${y >> up}`);
        if (!parent || !parent.canvas) continue;
        const part = side / 2 ** up, mask = 2 ** up - 1;
        put(parent.canvas, (x & mask) * part, (y & mask) * part, part, x0 + x * step, y0 + y * step, step);
        break;
      }
    }
    context.globalAlpha = 1;
    counters.missing = missing;
    load();
    return late;
  }
  /* Whole px, so that neighbours neither overlap nor leave a line between them. */
  function put(bitmap, sx, sy, part, x, y, step) {
    const left = Math.round(x), top = Math.round(y);
    context.drawImage(bitmap, sx, sy, part, part, left, top, Math.round(x + step) - left, Math.round(y + step) - top);
  }
  function drawHeat(x0, y0, zoom) {
    context.globalAlpha = 0.6;
    context.imageSmoothingEnabled = false;
    const cell = about.heat_cell * zoom;
    context.drawImage(heat.canvas, x0, y0, heat.canvas.width * cell, heat.canvas.height * cell);
    context.imageSmoothingEnabled = true;
    context.globalAlpha = 1;
  }
  function drawPicked(x0, y0, zoom, ratio) {
    const path = new Path2D();
    for (const ring of picked.rings) ring.forEach(([x, y], i) => path[i ? "lineTo" : "moveTo"](x0 + x * zoom, y0 + y * zoom));
    context.lineJoin = "round";
    context.lineWidth = 5 * ratio; context.strokeStyle = "#fff"; context.stroke(path);
    context.lineWidth = 2.5 * ratio; context.strokeStyle = "#000"; context.stroke(path);
  }
  function scaleBar(zoom) {
    const longest = 140 / (zoom / about.mpp), power = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1].map((n) => n * power).find((n) => n <= longest);
    const [value, unit] = about.unit === "µm" && length >= 1000 ? [length / 1000, "mm"] : [length, about.unit];
    $("bar").firstElementChild.textContent = `${+value.toPrecision(3)} ${unit}`;
    $("bar").lastElementChild.style.width = `${(length / about.mpp) * zoom}px`;
  }

  /* ---- heat map ---- */
  const VIRIDIS = [[68, 1, 84], [72, 26, 108], [71, 47, 125], [65, 68, 135], [57, 86, 140], [49, 104, 142], [42, 120, 142], [35, 136, 142],
    [31, 152, 139], [34, 168, 132], [53, 183, 121], [84, 197, 104], [122, 209, 81], [165, 219, 54], [210, 226, 27], [253, 231, 37]];
  const chosen = () => `classes=${classes.map((_, i) => i).filter((i) => style.on[i]).join(",")}&score=${style.least / 255}`;
  async function fetchHeat() {
    const buffer = await source.heat();
    const [cols, rows] = new Uint32Array(buffer, 0, 2), values = new Float32Array(buffer, 8);
    const sorted = Float32Array.from(values).filter((v) => v > 0).sort();
    const top = sorted.length ? sorted[Math.floor((sorted.length - 1) * 0.995)] : 1;
    const picture = document.createElement("canvas");
    picture.width = cols; picture.height = rows;
    const pen = picture.getContext("2d"), image = pen.createImageData(cols, rows);
    values.forEach((value, i) => {
      if (!value) return;
      const at = Math.min(1, value / top) * 15, low = Math.floor(at), part = at - low, next = VIRIDIS[Math.min(15, low + 1)];
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = VIRIDIS[low][c] * (1 - part) + next[c] * part;
      image.data[4 * i + 3] = 255;
    });
    pen.putImageData(image, 0, 0);
    heat = { canvas: picture, top };
    $("hottest").textContent = `${Math.round(top).toLocaleString("en")} / ${about.unit === "px" ? "Mpx" : "mm²"}`;
    redraw();
  }
  let timer = 0;
  function wanted() {
    clearTimeout(timer);
    const on = $("heat")?.checked;
    $("legend").hidden = !on;
    if (on) timer = setTimeout(fetchHeat, 120);
  }

  /* ---- one object ---- */
  async function pick(pixel) {
    const at = place(), x = (pixel.x - at.x) / at.zoom, y = (pixel.y - at.y) / at.zoom;
    picked = await source.pick(x, y, 8 / at.zoom, style);
    const section = $("picked"), body = section.querySelector("tbody");
    section.hidden = !picked;
    body.replaceChildren();
    if (picked) {
      section.querySelector("h2").textContent = picked.row.id ? `Object ${picked.row.id}` : about.kind.replace(/^./, (c) => c.toUpperCase()).slice(0, -1);
      for (const [name, value] of Object.entries(picked.row)) {
        const row = body.insertRow(), head = document.createElement("th");
        head.scope = "row"; head.textContent = name;
        row.append(head);
        row.insertCell().textContent = typeof value === "number" ? +value.toPrecision(6) : value;
      }
      document.querySelector("#panel > details").open = true;
      section.scrollIntoView({ block: "nearest" });
    }
    $("status").textContent = picked ? "" : "No object there.";
    redraw();
  }
  viewer.addHandler("canvas-click", (event) => { if (event.quick) pick(event.position); });

  /* ---- the place, as a link ---- */
  let own = "";
  function note() {
    const at = place(), box = viewer.container;
    const x = (box.clientWidth / 2 - at.x) / at.zoom, y = (box.clientHeight / 2 - at.y) / at.zoom;
    own = `#${x.toFixed(1)},${y.toFixed(1)},${at.zoom.toPrecision(4)}`;
    try { history.replaceState(null, "", own); } catch { /* some browsers do not let files from disk have one */ }
  }
  function go(immediately) {
    const [x, y, zoom] = location.hash.slice(1).split(",").map(Number);
    if (![x, y, zoom].every(Number.isFinite) || !(zoom > 0)) return false;
    const viewport = viewer.viewport;
    viewport.zoomTo((zoom * about.width) / viewport.getContainerSize().x, null, immediately);
    viewport.panTo(new OpenSeadragon.Point(x / about.width, y / about.width), immediately);
    return true;
  }
  addEventListener("hashchange", () => { if (location.hash !== own) go(false); });
  viewer.addHandler("animation-finish", note);

  /* ---- buttons and keys ---- */
  function shot() {
    const ratio = canvas.width / viewer.container.clientWidth, out = document.createElement("canvas");
    out.width = canvas.width; out.height = canvas.height;
    const pen = out.getContext("2d");
    pen.fillStyle = "#fff"; pen.fillRect(0, 0, out.width, out.height);
    pen.drawImage(viewer.drawer.canvas, 0, 0, out.width, out.height);
    pen.drawImage(canvas, 0, 0);
    const bar = $("bar").lastElementChild.clientWidth * ratio, text = $("bar").firstElementChild.textContent, edge = 16 * ratio;
    pen.fillStyle = "#ffffffd9"; pen.fillRect(edge - 6 * ratio, out.height - edge - 30 * ratio, bar + 12 * ratio, 36 * ratio);
    pen.fillStyle = "#111"; pen.fillRect(edge, out.height - edge - 6 * ratio, bar, 5 * ratio);
    pen.font = `${13 * ratio}px sans-serif`; pen.textAlign = "center"; pen.fillText(text, edge + bar / 2, out.height - edge - 12 * ratio);
    out.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${about.slide}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
  const whole = () => viewer.viewport.goHome(false);
  const flip = (id) => { const box = $(id); if (box) box.click(); };
  const nudge = (by) => { $("score").value = +$("score").value + by; $("score").dispatchEvent(new Event("input")); };
  $("shot")?.addEventListener("click", shot);
  $("whole").addEventListener("click", whole);
  $("link").addEventListener("click", async () => {
    note();
    try { await navigator.clipboard.writeText(location.href); $("status").textContent = "Copied."; }
    catch { $("status").textContent = location.href; }
  });
  $("score").addEventListener("input", () => {
    style.least = Math.round(255 * $("score").value);
    $("score_text").textContent = (+$("score").value).toFixed(2);
    restyle(); wanted();
  });
  $("opacity").addEventListener("input", () => { opacity = +$("opacity").value; redraw(); });
  $("things").addEventListener("change", redraw);
  $("heat")?.addEventListener("change", () => { wanted(); redraw(); });
  $("safe").addEventListener("change", colour);
  const middle = () => pick({ x: viewer.container.clientWidth / 2, y: viewer.container.clientHeight / 2 });
  const keys = { o: () => flip("things"), h: () => flip("heat"), b: () => flip("safe"), s: () => flip("shot"), 0: whole, Enter: middle,
    n: () => flip("next"), p: () => flip("previous"), "[": () => nudge(-0.05), "]": () => nudge(0.05) };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|BUTTON|A|SUMMARY)$/.test(event.target.tagName)) return;
    if (/^[1-9]$/.test(event.key)) flip(`class${event.key - 1}`);
    else if (keys[event.key]) keys[event.key]();
  });
  viewer.addHandler("canvas-key", (event) => {
    /* the single letters are ours; the arrows, + and - are the viewer's */
    if (/^[a-z0-9[\]]$/i.test(event.originalEvent.key)) event.preventDefaultAction = true;
  });

  /* ---- begin ---- */
  $("safe").checked = about.confusable;
  viewer.addHandler("update-viewport", draw);
  viewer.addHandler("resize", redraw);
  viewer.addHandler("open", () => { go(true); redraw(); });
  colour();
  window.quadratView = { viewer, about, counters, style, place, pick, get picked() { return picked; }, get heat() { return heat; } };
})();
