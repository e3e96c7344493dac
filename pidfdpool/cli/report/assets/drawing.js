// Draws the timeline on a canvas: what lies between two times, a column of pixels at a time where tasks are narrower.

const MARKS = { death: "✕", kill: "◆", retry: "▲", recycle: "○", template: "■" };
const AXIS = 22, POOL = 18, STRIP = 38;

// Where things are, for a canvas of that width in CSS pixels.
function arrange(data, width) {
  const count = data.tracks.length;
  const left = width < 600 ? 66 : 96;
  const height = count <= 40 ? 20 : count <= 120 ? 12 : count <= 400 ? 6 : 3;
  const strips = AXIS + POOL;
  const tracks = strips + data.counters.length * STRIP + 4;
  return { left, width, height, strips, tracks, bottom: Math.max(tracks + count * height + 4, 120) };
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(`--${name}`).trim();
  const found = { ranks: Array.from({ length: 10 }, (_, rank) => named(`f${rank}`)) };
  for (const name of ["back", "front", "dim", "line", "panel", "start", "wait", "bad", "alive", "other", "focus"]) {
    found[name] = named(name);
  }
  return found;
}

class Drawing {
  constructor(data, context, place, view, paint) {
    Object.assign(this, { data, context, place, view, paint });
    this.scale = (place.width - place.left) / (view.end - view.begin);
  }

  x(time) { return this.place.left + (time - this.view.begin) * this.scale; }

  y(track) { return this.place.tracks + track * this.place.height; }

  // From a time to another one, cut to what is shown; nothing if it is not.
  box(begin, end, y, height, least = 0) {
    const from = Math.max(this.place.left, this.x(begin));
    const to = Math.min(this.place.width, Math.max(this.x(end), from + least));
    if (to > from) this.context.fillRect(from, y, to - from, height);
  }

  all() {
    const { context, place, paint } = this;
    context.fillStyle = paint.back;
    context.fillRect(0, 0, place.width, place.bottom);
    context.font = '12px system-ui, "Liberation Sans", "DejaVu Sans", sans-serif';
    context.textBaseline = "middle";
    this.axis();
    this.data.counters.forEach((name, strip) => this.counter(name, place.strips + strip * STRIP));
    for (let track = 0; track < this.data.tracks.length; track += 1) this.track(track);
    this.marks();
    this.labels();
  }

  axis() {
    const { context, place, paint, view } = this;
    const span = view.end - view.begin;
    const rough = span / Math.max(2, (place.width - place.left) / 110);
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
    context.textAlign = "center";
    for (let time = Math.ceil(view.begin / step) * step; time <= view.end; time += step) {
      const x = this.x(time);
      context.fillStyle = paint.line;
      context.fillRect(Math.round(x), AXIS - 4, 1, place.bottom);
      context.fillStyle = paint.dim;
      if (x > place.left + 20 && x < place.width - 24) context.fillText(moment(time, step * 100), x, AXIS / 2);
    }
  }

  // What a counter showed, as an area below its highest value in each column of pixels.
  counter(name, top) {
    const { context, place, paint, view } = this;
    const times = this.data.columns[`${name}.time`], values = this.data.columns[`${name}.value`];
    const most = this.data.highest[name] || 1;
    const high = STRIP - 8, bottom = top + STRIP - 2;
    let at = Math.max(0, firstAfter(times, view.begin, 0, times.length) - 1);
    context.fillStyle = paint.ranks[{ queue: 0, busy: 1, memory: 3 }[name]];
    context.globalAlpha = 0.75;
    let column = -1, highest = 0;
    const flush = () => {
      if (column >= 0) context.fillRect(column, bottom - (highest / most) * high, 1, (highest / most) * high);
    };
    for (; at < times.length && times[at] <= view.end; at += 1) {
      const until = at + 1 < times.length ? times[at + 1] : this.data.end;
      const from = Math.max(place.left, Math.floor(this.x(times[at])));
      const to = Math.min(place.width, Math.floor(this.x(until)));
      if (from !== column) { flush(); column = from; highest = 0; }
      highest = Math.max(highest, values[at]);
      if (to > from + 1) {
        context.fillRect(from + 1, bottom - (values[at] / most) * high, to - from - 1, (values[at] / most) * high);
      }
    }
    flush();
    context.globalAlpha = 1;
    context.fillStyle = paint.line;
    context.fillRect(place.left, bottom, place.width, 1);
  }

  track(track) {
    const inner = this.place.height > 4 ? this.place.height - 2 : this.place.height;
    const y = this.y(track) + (this.place.height > 4 ? 1 : 0);
    this.lives(track, y, inner);
    this.tasks(track, y, inner);
  }

  lives(track, y, height) {
    const { context, place, paint, view, data } = this;
    const { "life.begin": begins, "life.ready": readies, "life.end": ends } = data.columns;
    const fill = (begin, ready, end) => {
      context.fillStyle = paint.alive;
      this.box(ready, end, y, height);
      context.fillStyle = paint.start;
      context.globalAlpha = 0.65;
      this.box(begin, ready, y, height);
      context.globalAlpha = 1;
    };
    // Lives that are narrower than a pixel are drawn as one for each column, the starts of all of them first.
    const pixel = 1 / this.scale;
    let column = -1, begin = 0, starts = 0;
    const flush = () => { if (column >= 0) fill(begin, begin + Math.min(starts, pixel), begin + pixel); column = -1; };
    for (let life = data.firstLife[track]; life < data.firstLife[track + 1]; life += 1) {
      if (ends[life] < view.begin || begins[life] > view.end) continue;
      if (ends[life] - begins[life] >= pixel) { flush(); fill(begins[life], readies[life], ends[life]); continue; }
      const here = Math.max(place.left, Math.floor(this.x(begins[life])));
      if (here !== column) { flush(); column = here; begin = view.begin + (here - place.left) * pixel; starts = 0; }
      starts += readies[life] - begins[life];
    }
    flush();
  }

  tasks(track, y, height) {
    const { context, place, paint, view, data } = this;
    const { begin, duration: durations, wait, function: functions, outcome } = data.columns;
    const last = data.firstTask[track + 1];
    const first = Math.max(data.firstTask[track], firstAfter(begin, view.begin, data.firstTask[track], last) - 1);
    const colour = (each) => (data.rank[each] < 0 ? paint.other : paint.ranks[data.rank[each]]);
    let column = -1, covered = 0, longest = 0, main = 0, bad = false;
    const flush = () => {
      if (column < 0) return;
      context.fillStyle = colour(main);
      context.globalAlpha = Math.max(0.3, Math.min(1, covered));
      context.fillRect(column, y, 1, height);
      context.globalAlpha = 1;
      if (bad) { context.fillStyle = paint.bad; context.fillRect(column - 1, y, 3, Math.max(2, height / 4)); }
      column = -1;
    };
    for (let task = first; task < last && begin[task] < view.end; task += 1) {
      const from = this.x(begin[task]), wide = durations[task] * this.scale;
      if (from + wide < place.left) continue;
      if (wait[task] * this.scale >= 1) {
        context.fillStyle = paint.wait;
        this.box(begin[task] - wait[task], begin[task], y + height / 2 - 1, 2);
      }
      if (wide >= 1) {
        flush();
        context.fillStyle = colour(functions[task]);
        this.box(begin[task], begin[task] + Math.max(durations[task] - (wide > 4 ? 1 / this.scale : 0), 0), y, height, 1);
        if (outcome[task]) { context.fillStyle = paint.bad; this.box(begin[task], begin[task] + durations[task], y, Math.max(2, height / 4), 2); }
        if (wide > 50 && height > 10) this.caption(data.functions[functions[task]], from, wide, y + height / 2);
        continue;
      }
      const here = Math.max(place.left, Math.floor(from));
      if (here !== column) { flush(); column = here; covered = 0; longest = -1; bad = false; }
      covered += wide;
      bad ||= outcome[task] > 0;
      if (wide > longest) { longest = wide; main = functions[task]; }
    }
    flush();
  }

  // A function's name in its task, as much as fits.
  caption(name, from, wide, y) {
    const { context, place, paint } = this;
    const left = Math.max(from, place.left) + 4;
    const room = Math.floor((Math.min(from + wide, place.width) - left - 4) / 6.6);
    if (room < 4) return;
    const short = name.slice(Math.max(name.lastIndexOf(":"), name.lastIndexOf(".")) + 1);
    context.fillStyle = paint.back;
    context.textAlign = "left";
    context.fillText(short.length <= room ? short : `${short.slice(0, room - 1)}…`, left, y);
  }

  marks() {
    const { context, place, paint, view, data } = this;
    const drawn = new Set();
    context.textAlign = "center";
    for (const [track, time, kind, , expected] of data.marks) {
      if (time < view.begin || time > view.end) continue;
      const x = Math.round(this.x(time)), key = `${track} ${kind} ${expected} ${x >> 2}`;
      if (drawn.has(key)) continue;
      drawn.add(key);
      const y = track < 0 ? AXIS + POOL / 2 : this.y(track) + place.height / 2;
      context.font = 'bold 13px "DejaVu Sans", "Liberation Sans", sans-serif';
      context.lineWidth = 3;
      context.strokeStyle = paint.back;
      context.fillStyle = expected || kind === "recycle" || kind === "template" ? paint.dim : paint.bad;
      context.strokeText(MARKS[kind], x, y);
      context.fillText(MARKS[kind], x, y);
    }
    context.font = '12px system-ui, "Liberation Sans", "DejaVu Sans", sans-serif';
  }

  labels() {
    const { context, place, paint, data } = this;
    context.fillStyle = paint.panel;
    context.fillRect(0, 0, place.left, place.bottom);
    context.fillStyle = paint.line;
    context.fillRect(place.left - 1, 0, 1, place.bottom);
    context.textAlign = "left";
    const write = (text, y, dim) => {
      context.fillStyle = dim ? paint.dim : paint.front;
      context.fillText(text, 6, y, place.left - 12);
    };
    write("pool", AXIS + POOL / 2);
    data.counters.forEach((name, strip) => {
      const highest = data.highest[name];
      write(name, place.strips + strip * STRIP + 11);
      write(`≤ ${name === "memory" ? size(highest) : highest.toLocaleString("en")}`, place.strips + strip * STRIP + 26, true);
    });
    const every = Math.ceil(12 / place.height);
    data.tracks.forEach((name, track) => {
      if (track % every === 0) write(name, this.y(track) + Math.max(place.height, 12) / 2);
    });
  }

  // The way of one task: submitted to the pool, begun, ended.
  way(task) {
    const { context, place, paint, data } = this;
    const { begin, duration: durations, queued, track } = data.columns;
    const middle = AXIS + POOL / 2, y = this.y(track[task]);
    const submitted = this.x(begin[task] - queued[task]), from = this.x(begin[task]), to = this.x(begin[task] + durations[task]);
    context.save();
    context.beginPath();
    context.rect(place.left, 0, place.width, place.bottom);
    context.clip();
    context.strokeStyle = context.fillStyle = paint.front;
    context.lineWidth = 1.5;
    context.setLineDash([4, 3]);
    context.beginPath();
    context.moveTo(submitted, middle);
    context.lineTo(from, middle);
    context.lineTo(from, y);
    context.stroke();
    context.setLineDash([]);
    context.strokeRect(from - 0.5, y + 0.5, Math.max(to - from, 2) + 1, place.height - 1);
    context.beginPath();
    context.arc(submitted, middle, 3.5, 0, 7);
    context.fill();
    context.restore();
  }
}
