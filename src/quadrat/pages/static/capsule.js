"use strict";
/* The viewer's data from files next to the page: a page from disk may not fetch, but it may run scripts. */

window.quadratSource = (() => {
  const about = window.quadratAbout, there = new Set(about.tiles), waiting = new Map(), kept = new Map();
  const EMPTY = new ArrayBuffer(16);

  window.quadratTile = (key, text) => {
    const letters = atob(text), bytes = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    waiting.get(key)(new Response(plain).arrayBuffer());
    waiting.delete(key);
  };

  function things(key) {
    if (!there.has(key)) return Promise.resolve(EMPTY);
    if (!kept.has(key)) kept.set(key, new Promise((done, failed) => {
      const script = document.createElement("script");
      waiting.set(key, done);
      script.src = `things/${key}.js`;
      script.onerror = () => { kept.delete(key); failed(new Error(key)); };
      document.head.append(script);
      script.onload = () => script.remove();
    }));
    return kept.get(key);
  }

  /* The smallest outline around a place, as the finest tile has it; else the nearest mark. */
  async function pick(x, y, reach, style) {
    const scale = 2 ** about.least_level, side = about.tile * scale, col = Math.floor(x / side), row = Math.floor(y / side);
    const tile = Vectors.parse(await things(`${about.least_level}/${col}_${row}`));
    const place = (px, py) => [col * side + (px / 32) * scale, row * side + (py / 32) * scale];
    const seen = (kind, score) => style.on[kind] && score >= style.least;
    let best = null, ring = 0, vertex = 0;
    for (let i = 0; i < tile.polygons; i++) {
      const rings = [];
      for (let end = ring + tile.ringsOf[i]; ring < end; ring++) {
        const last = vertex + tile.verticesOf[ring], points = [];
        for (; vertex < last; vertex++) points.push(place(tile.vx[vertex], tile.vy[vertex]));
        rings.push(points);
      }
      if (!seen(tile.polygonKind[i], tile.polygonScore[i]) || !rings.reduce((inside, one) => inside !== covers(one, x, y), false)) continue;
      const area = Math.abs(rings[0].reduce((sum, [px, py], n, all) => sum + px * all[(n + 1) % all.length][1] - py * all[(n + 1) % all.length][0], 0)) / 2;
      if (!best || area < best.area) best = { area, rings, kind: tile.polygonKind[i], score: tile.polygonScore[i] };
    }
    for (let i = 0; !best?.area && i < tile.marks; i++) {
      const [px, py] = place(tile.x[i], tile.y[i]), away = Math.hypot(px - x, py - y);
      if (seen(tile.kind[i], tile.score[i]) && away <= (best ? best.away : reach)) best = { away, px, py, kind: tile.kind[i], score: tile.score[i] };
    }
    if (!best) return null;
    const around = 4 * scale, { px, py } = best;
    const square = [[px - around, py - around], [px + around, py - around], [px + around, py + around], [px - around, py + around], [px - around, py - around]];
    const rings = best.rings ?? [square], xs = rings[0].map((p) => p[0]), ys = rings[0].map((p) => p[1]);
    const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    return { row: { class: about.classes[best.kind].name, score: best.score / 255, x_l0: (box[0] + box[2]) / 2, y_l0: (box[1] + box[3]) / 2 }, box, rings };
  }

  function covers(ring, x, y) {
    let inside = false;
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
      const [ax, ay] = ring[i], [bx, by] = ring[j];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    }
    return inside;
  }

  return { about: async () => about, image: (level, x, y) => `image/${level}/${x}_${y}.jpg`, things, pick };
})();
