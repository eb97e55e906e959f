"use strict";
/* Tiles of objects: their bytes (as pages/vectors.py packs them), and how they are drawn. */

const Vectors = (() => {
  const STEP = 32, CELL = 4;
  const ORDER = [0, 10, 2, 8, 5, 15, 7, 13, 1, 11, 3, 9, 4, 14, 6, 12]; // px of a cell, far from each other

  function parse(buffer) {
    const head = new Uint32Array(buffer, 0, 4);
    const [marks, polygons, rings, vertices] = head;
    let at = 16;
    const take = (Kind, n) => {
      const part = new Kind(buffer, at, n);
      at += Math.ceil((n * Kind.BYTES_PER_ELEMENT) / 4) * 4;
      return part;
    };
    return {
      marks, polygons,
      x: take(Int16Array, marks), y: take(Int16Array, marks),
      kind: take(Uint8Array, marks), score: take(Uint8Array, marks), weight: take(Uint8Array, marks),
      polygonKind: take(Uint8Array, polygons), polygonScore: take(Uint8Array, polygons),
      ringsOf: take(Uint32Array, polygons), verticesOf: take(Uint32Array, rings),
      vx: take(Int16Array, vertices), vy: take(Int16Array, vertices),
    };
  }

  /* style: {colours: [[r, g, b]], on: [bool], least: 0-255, fill: 0-1} */
  function draw(tile, canvas, side, style) {
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    if (tile.marks) drawMarks(tile, context, side, style);
    if (tile.polygons) drawPolygons(tile, context, style);
  }

  /* One thing is a dot. Several in a cell fill it: its px are dealt to the classes by their numbers, each has one at
     least, and they are the darker the more things there are. */
  function drawMarks(tile, context, side, style) {
    const image = context.createImageData(side, side), pixels = new Uint32Array(image.data.buffer);
    const inks = style.colours.map(shades), cells = new Map(), across = side / CELL + 2;
    for (let i = 0; i < tile.marks; i++) {
      if (!style.on[tile.kind[i]] || tile.score[i] < style.least) continue;
      const x = Math.floor(tile.x[i] / STEP / CELL), y = Math.floor(tile.y[i] / STEP / CELL), key = (y + 1) * across + x + 1;
      const there = cells.get(key);
      if (there) there.push(i); else cells.set(key, [i]);
    }
    for (const [key, marks] of cells) {
      const x = ((key % across) - 1) * CELL, y = (Math.floor(key / across) - 1) * CELL, first = marks[0];
      if (marks.length === 1 && !tile.weight[first]) {
        const left = Math.round(tile.x[first] / STEP - 1.5), top = Math.round(tile.y[first] / STEP - 1.5);
        for (let n = 0; n < 9; n++) put(left + (n % 3), top + Math.floor(n / 3), inks[tile.kind[first]][0]);
        continue;
      }
      const numbers = marks.map((i) => 2 ** (tile.weight[i] / 16)), all = numbers.reduce((a, b) => a + b);
      const shade = Math.min(7, Math.round(Math.log2(all))), spare = CELL * CELL - marks.length;
      let taken = 0, passed = 0;
      marks.forEach((i, n) => {
        passed += numbers[n];
        const end = n + 1 + Math.round((spare * passed) / all);
        for (; taken < end; taken++) put(x + (ORDER[taken] % CELL), y + Math.floor(ORDER[taken] / CELL), inks[tile.kind[i]][shade]);
      });
    }
    context.putImageData(image, 0, 0);

    function put(col, row, ink) {
      if (col >= 0 && row >= 0 && col < side && row < side) pixels[row * side + col] = ink;
    }
  }

  /* Eight inks of a colour, each for twice as many things as the one before. */
  function shades([red, green, blue]) {
    return Array.from({ length: 8 }, (_, i) => {
      const light = 1 - 0.09 * i;
      return ((255 << 24) | (blue * light << 16) | (green * light << 8) | (red * light)) >>> 0;
    });
  }

  function drawPolygons(tile, context, style) {
    const paths = style.colours.map(() => null);
    let ring = 0, vertex = 0;
    for (let i = 0; i < tile.polygons; i++) {
      const kind = tile.polygonKind[i], seen = style.on[kind] && tile.polygonScore[i] >= style.least;
      const path = seen ? (paths[kind] ||= new Path2D()) : null;
      for (let end = ring + tile.ringsOf[i]; ring < end; ring++) {
        const last = vertex + tile.verticesOf[ring];
        if (path) {
          path.moveTo(tile.vx[vertex] / STEP, tile.vy[vertex] / STEP);
          for (let v = vertex + 1; v < last - 1; v++) path.lineTo(tile.vx[v] / STEP, tile.vy[v] / STEP);
          path.closePath();
        }
        vertex = last;
      }
    }
    context.lineWidth = 1.6;
    context.lineJoin = "round";
    paths.forEach((path, kind) => {
      if (!path) return;
      const colour = `rgb(${style.colours[kind].join(",")})`;
      if (style.fill) {
        context.globalAlpha = style.fill;
        context.fillStyle = colour;
        context.fill(path, "evenodd");
        context.globalAlpha = 1;
      }
      context.strokeStyle = colour;
      context.stroke(path);
    });
  }

  return { parse, draw };
})();
