// The timeline: what is shown of it, and how mouse, keys and buttons change that.

const LEAST = 2; // microseconds that are shown at least

class Timeline {
  constructor(data) {
    this.data = data;
    this.canvas = document.getElementById("canvas");
    this.tooltip = document.getElementById("tooltip");
    this.base = document.createElement("canvas"); // what is drawn without the task that is pointed at
    this.view = { begin: 0, end: data.end };
    this.chosen = -1; // a task
    this.pointed = -1;
    this.chosenTrack = 0;
    this.pending = false;
    this.listen();
    this.resize();
    this.legend();
  }

  // ---- what is shown

  resize() {
    const width = this.canvas.parentElement.clientWidth;
    if (!width) return;
    this.place = arrange(this.data, width);
    this.canvas.style.height = `${this.place.bottom}px`;
    const ratio = Math.min(window.devicePixelRatio || 1, 3);
    for (const canvas of [this.canvas, this.base]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(this.place.bottom * ratio);
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.paint = colours();
    this.changed();
  }

  changed() {
    const { begin, end } = this.view, { dataset } = this.canvas;
    Object.assign(dataset, { begin, end, left: this.place.left, tracks: this.place.tracks, height: this.place.height });
    document.getElementById("range").value =
      `${moment(begin, end - begin)} to ${moment(end, end - begin)} (${duration(end - begin)})`;
    this.stale = true;
    this.later();
  }

  later() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.draw(); });
  }

  draw() {
    if (this.stale) {
      new Drawing(this.data, this.base.getContext("2d"), this.place, this.view, this.paint).all();
      this.stale = false;
    }
    const context = this.canvas.getContext("2d");
    context.drawImage(this.base, 0, 0, this.place.width, this.place.bottom);
    const over = new Drawing(this.data, context, this.place, this.view, this.paint);
    for (const task of new Set([this.chosen, this.pointed])) if (task >= 0) over.way(task);
  }

  show(begin, end) {
    const span = Math.min(Math.max(end - begin, LEAST), this.data.end);
    const middle = (begin + end) / 2;
    const from = Math.min(Math.max(middle - span / 2, 0), this.data.end - span);
    this.view = { begin: from, end: from + span };
    this.changed();
  }

  // Show more or less of it; the time at that share of the width stays where it is.
  zoom(factor, share = 0.5) {
    const { begin, end } = this.view;
    const span = Math.min(Math.max((end - begin) * factor, LEAST), this.data.end);
    const fixed = begin + (end - begin) * share;
    this.show(fixed - span * share, fixed + span * (1 - share));
  }

  pan(share) {
    const by = (this.view.end - this.view.begin) * share;
    this.show(this.view.begin + by, this.view.end + by);
  }

  all() { this.show(0, this.data.end); }

  // ---- mouse, keys and buttons

  listen() {
    const { canvas } = this;
    const buttons = {
      "zoom-in": () => this.zoom(0.5), "zoom-out": () => this.zoom(2), "pan-left": () => this.pan(-0.5),
      "pan-right": () => this.pan(0.5), "zoom-all": () => this.all(),
    };
    for (const [name, action] of Object.entries(buttons)) document.getElementById(name).onclick = action;
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => { this.drag = null; canvas.classList.remove("dragged"); });
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.resize());
  }

  wheel(event) {
    const everything = this.view.end - this.view.begin >= this.data.end;
    const sideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (everything && (sideways || event.deltaY > 0)) return; // nothing more to show: the page scrolls
    event.preventDefault();
    if (sideways) this.pan(event.deltaX / 800);
    else this.zoom(Math.exp(Math.max(-400, Math.min(400, event.deltaY)) / 300), this.share(event.offsetX));
  }

  share(x) { return Math.min(Math.max((x - this.place.left) / (this.place.width - this.place.left), 0), 1); }

  time(x) { return this.view.begin + this.share(x) * (this.view.end - this.view.begin); }

  press(event) {
    if (event.button !== 0) return;
    this.drag = { x: event.offsetX, view: this.view, moved: false };
    this.canvas.setPointerCapture(event.pointerId);
  }

  move(event) {
    if (!this.drag) { this.point(event); return; }
    const by = this.drag.x - event.offsetX;
    if (Math.abs(by) > 3) this.drag.moved = true;
    if (!this.drag.moved) return;
    this.canvas.classList.add("dragged");
    this.point(null);
    const { begin, end } = this.drag.view;
    const time = (by / (this.place.width - this.place.left)) * (end - begin);
    this.show(begin + time, end + time);
  }

  release(event) {
    const moved = this.drag?.moved;
    this.drag = null;
    this.canvas.classList.remove("dragged");
    if (!moved) this.choose(this.taskAt(event.offsetX, event.offsetY));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const actions = {
      "+": () => this.zoom(0.5), "=": () => this.zoom(0.5), "-": () => this.zoom(2), ArrowLeft: () => this.pan(-0.2),
      ArrowRight: () => this.pan(0.2), 0: () => this.all(), Home: () => this.all(), ArrowUp: () => this.turn(-1),
      ArrowDown: () => this.turn(1), ",": () => this.step(-1), ".": () => this.step(1), Escape: () => this.choose(-1),
    };
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  }

  // Choose the task of the next or previous worker, in the middle of what is shown.
  turn(by) {
    const count = this.data.tracks.length;
    if (!count) return;
    if (this.chosen >= 0) this.chosenTrack = Math.min(Math.max(this.chosenTrack + by, 0), count - 1);
    const first = this.data.firstTask[this.chosenTrack], last = this.data.firstTask[this.chosenTrack + 1];
    if (first === last) return;
    const middle = (this.view.begin + this.view.end) / 2;
    this.choose(Math.max(first, firstAfter(this.data.columns.begin, middle, first, last) - 1), true);
  }

  step(by) {
    const to = this.chosen + by;
    if (this.chosen < 0) this.turn(0);
    else if (to >= this.data.firstTask[this.chosenTrack] && to < this.data.firstTask[this.chosenTrack + 1]) this.choose(to, true);
  }

  choose(task, bring = false) {
    this.chosen = task;
    const details = document.getElementById("details");
    details.replaceChildren();
    if (task >= 0) {
      const { begin, track, duration: durations } = this.data.columns;
      this.chosenTrack = track[task];
      details.append(...this.facts(task));
      if (bring && (begin[task] < this.view.begin || begin[task] + durations[task] > this.view.end)) {
        const span = this.view.end - this.view.begin;
        this.show(begin[task] + durations[task] / 2 - span / 2, begin[task] + durations[task] / 2 + span / 2);
      }
    }
    this.later();
  }

  // ---- what lies under the mouse

  trackAt(y) {
    const track = Math.floor((y - this.place.tracks) / this.place.height);
    return y >= this.place.tracks && track < this.data.tracks.length ? track : -1;
  }

  taskAt(x, y) {
    const track = this.trackAt(y);
    if (track < 0 || x < this.place.left) return -1;
    const { begin, duration: durations } = this.data.columns;
    const time = this.time(x), pixel = (this.view.end - this.view.begin) / (this.place.width - this.place.left);
    const first = this.data.firstTask[track], last = this.data.firstTask[track + 1];
    const after = firstAfter(begin, time, first, last);
    if (after > first && time <= begin[after - 1] + durations[after - 1] + pixel) return after - 1;
    return after < last && begin[after] - time <= pixel ? after : -1;
  }

  markAt(x, y) {
    const track = this.trackAt(y);
    if (track < 0 && (y < AXIS || y >= AXIS + POOL)) return null;
    const pixel = (this.view.end - this.view.begin) / (this.place.width - this.place.left);
    const near = this.data.marks.filter((mark) => mark[0] === track && Math.abs(mark[1] - this.time(x)) <= 6 * pixel);
    return near.length ? near : null;
  }

  lifeAt(x, y) {
    const track = this.trackAt(y), time = this.time(x);
    const { "life.begin": begins, "life.end": ends } = this.data.columns;
    for (let life = this.data.firstLife[track]; track >= 0 && life < this.data.firstLife[track + 1]; life += 1) {
      if (begins[life] <= time && time <= ends[life]) return life;
    }
    return -1;
  }

  point(event) {
    const shown = event && event.offsetX >= this.place.left ? this.about(event.offsetX, event.offsetY) : null;
    this.tooltip.hidden = !shown;
    if (shown) {
      this.tooltip.replaceChildren(...shown);
      const { offsetWidth, offsetHeight } = this.tooltip;
      const x = event.offsetX + 14 + offsetWidth > this.place.width ? event.offsetX - offsetWidth - 10 : event.offsetX + 14;
      const below = event.clientY + 18 + offsetHeight < window.innerHeight;
      const y = below ? event.offsetY + 18 : event.offsetY - offsetHeight - 12;
      this.tooltip.style.left = `${Math.max(2, x)}px`;
      this.tooltip.style.top = `${y}px`;
    } else this.pointed = -1;
    this.later();
  }

  // What the tooltip says of a place, or null.
  about(x, y) {
    const marks = this.markAt(x, y);
    this.pointed = marks ? -1 : this.taskAt(x, y);
    if (marks) return [list(marks.slice(0, 4).map(([, time, kind, text]) => [`${kind} at ${moment(time, 1e4)}`, text]))];
    if (this.pointed >= 0) return this.facts(this.pointed);
    const strip = Math.floor((y - this.place.strips) / STRIP), time = this.time(x);
    if (y >= this.place.strips && strip < this.data.counters.length) return this.counted(this.data.counters[strip], time);
    const life = this.lifeAt(x, y);
    return life < 0 ? null : this.lived(life, time);
  }

  counted(name, time) {
    const { [`${name}.time`]: times, [`${name}.value`]: values } = this.data.columns;
    const at = firstAfter(times, time, 0, times.length) - 1;
    if (at < 0) return null;
    const titles = { queue: "tasks queued", busy: "busy workers", memory: "memory of all workers" };
    return [list([[titles[name], name === "memory" ? size(values[at]) : values[at].toLocaleString("en")]])];
  }

  lived(life, time) {
    const columns = this.data.columns, track = columns["life.track"][life], ready = columns["life.ready"][life];
    const told = [["worker", `${this.data.tracks[track]}${columns["life.pid"][life] ? `, pid ${columns["life.pid"][life]}` : ""}`]];
    if (time >= ready) return [list([...told, ["runs nothing", `at ${moment(time, 1e4)}`]])];
    told.push(["starts", duration(ready - columns["life.begin"][life])]);
    for (const [where, begin, long, name] of this.data.parts) {
      if (where === track && begin >= columns["life.begin"][life] && begin <= ready) told.push([name, duration(long)]);
    }
    return [list(told)];
  }

  facts(task) {
    const data = this.data, columns = data.columns;
    const begin = columns.begin[task], long = columns.duration[task], queued = columns.queued[task];
    const title = document.createElement("strong");
    title.textContent = data.functions[columns.function[task]];
    const attempt = columns.attempt[task] > 1 ? `, attempt ${columns.attempt[task]}` : "";
    const submitted = begin >= queued ? moment(begin - queued, 1e4) : "before the trace";
    const told = [
      ["task", `${columns.number[task]}${attempt}, ${data.tracks[columns.track[task]]}`],
      ["took", `${duration(long)}, after ${duration(queued)} in the queue`],
      ["submitted", `${submitted}, begun ${moment(begin, 1e4)}, ended ${moment(begin + long, 1e4)}`],
      ["outcome", data.outcomes[columns.outcome[task]]],
    ];
    if (columns.calls[task] !== 1) told.push(["calls", columns.calls[task].toLocaleString("en")]);
    const known = (bytes) => (bytes >= 0 ? size(bytes) : "?");
    const call = columns.request[task], result = columns.result[task];
    if (call >= 0 || result >= 0) told.push(["payloads", `call ${known(call)}, result ${known(result)}`]);
    if (columns.wait[task] > 0) told.push(["before", `the worker waited ${duration(columns.wait[task])}`]);
    if (task in data.errors) told.push(["error", data.errors[task]]);
    return [title, list(told)];
  }

  legend() {
    const legend = document.getElementById("legend");
    const add = (text, mark, colour) => {
      const item = document.createElement("li"), sign = document.createElement("span");
      sign.className = mark ? "mark" : "swatch";
      if (mark) sign.textContent = mark; else sign.style.background = `var(--${colour})`;
      item.append(sign, text);
      legend.append(item);
    };
    this.data.byTotal.forEach((each, rank) => add(this.data.functions[each], "", `f${rank}`));
    if (this.data.functions.length > this.data.byTotal.length) add("other functions", "", "other");
    add("start", "", "start");
    add("wait", "", "wait");
    add("task not done", "", "bad");
    const kinds = new Set(this.data.marks.map((mark) => mark[2]));
    for (const [kind, sign] of Object.entries(MARKS)) if (kinds.has(kind)) add(kind, sign);
    const { marks, allMarks } = this.data;
    if (marks.length < allMarks) add(`${marks.length.toLocaleString("en")} of ${allMarks.toLocaleString("en")} marks are shown`, " ");
  }
}

function list(pairs) {
  const made = document.createElement("dl");
  made.className = "facts";
  for (const [name, value] of pairs) {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    made.append(term, text);
  }
  return made;
}

unpack().then(
  (data) => { new Timeline(data); document.documentElement.dataset.ready = "yes"; },
  (error) => {
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.textContent = `This browser cannot draw the timeline: ${error.message}. The rest of the page is complete.`;
    document.getElementById("stage").replaceWith(notice);
  },
);
