"use strict";
/* Tiles of objects: their bytes (as pages/vectors.py packs them), and how they are drawn. */

const Vectors = (() => {
  const STEP = 32, CELL = 4;

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

  /* A mark that stands for several things fills its cell, the darker the more they are; one alone is a dot. */
  function drawMarks(tile, context, side, style) {
    const image = context.createImageData(side, side), pixels = new Uint32Array(image.data.buffer);
    const inks = style.colours.map(shades);
    for (let i = 0; i < tile.marks; i++) {
      const kind = tile.kind[i];
      if (!style.on[kind] || tile.score[i] < style.least) continue;
      const weight = tile.weight[i], ink = inks[kind][Math.min(7, weight >> 4)];
      let x = tile.x[i] / STEP, y = tile.y[i] / STEP, n = 3;
      if (weight) { x = Math.floor(x / CELL) * CELL; y = Math.floor(y / CELL) * CELL; n = CELL; }
      else { x = Math.round(x - 1.5); y = Math.round(y - 1.5); }
      for (let row = Math.max(0, y); row < Math.min(side, y + n); row++)
        for (let col = Math.max(0, x); col < Math.min(side, x + n); col++) pixels[row * side + col] = ink;
    }
    context.putImageData(image, 0, 0);
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
