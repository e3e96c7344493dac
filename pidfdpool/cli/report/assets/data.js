// Unpacks what the page holds, and tells numbers as the tables do. `encoding.py` has packed it.

async function unpack() {
  const data = JSON.parse(document.getElementById("described").textContent);
  const packed = Uint8Array.from(atob(document.getElementById("columns").textContent), (each) => each.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const types = { Float64Array, Float32Array, Uint32Array, Uint8Array };
  const columns = {};
  let offset = 0;
  for (const [name, type, length] of data.columns) {
    columns[name] = new types[type](buffer, offset, length);
    offset += columns[name].byteLength;
  }
  data.columns = columns;
  data.firstTask = firsts(columns.track, data.tracks.length);
  data.firstLife = firsts(columns["life.track"], data.tracks.length);
  data.rank = new Int32Array(data.functions.length).fill(-1); // of a function, by its time in all: its colour
  data.byTotal.forEach((each, rank) => { data.rank[each] = rank; });
  data.counters = ["queue", "busy", "memory"].filter((name) => `${name}.time` in columns);
  data.highest = {};
  for (const name of data.counters) data.highest[name] = columns[`${name}.value`].reduce((high, each) => Math.max(high, each), 0);
  return data;
}

// Where each track's rows begin in a column that is ordered by track; one more for the end.
function firsts(tracks, count) {
  const first = new Uint32Array(count + 1);
  for (const track of tracks) first[track + 1] += 1;
  for (let track = 0; track < count; track += 1) first[track + 1] += first[track];
  return first;
}

// The first place from `low` on, and below `high`, whose value is greater than that; `high` if there is none.
function firstAfter(values, value, low, high) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] > value) high = middle; else low = middle + 1;
  }
  return low;
}

function digits(number) {
  if (number >= 99.5) return number.toFixed(0);
  const text = number >= 0.01 ? number.toFixed(number >= 9.995 ? 1 : 2) : String(Number(number.toPrecision(2)));
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

// Microseconds as a duration.
function duration(time) {
  const seconds = time / 1e6;
  if (seconds >= 99.5) {
    const whole = Math.round(seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    return hours ? `${hours.toLocaleString("en")} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
  }
  if (seconds >= 0.9995) return `${digits(seconds)} s`;
  if (seconds >= 0.9995e-3) return `${digits(seconds * 1e3)} ms`;
  return time > 0 ? `${digits(time)} µs` : "0 s";
}

// A time since the trace began, with as many digits as the span that is shown needs.
function moment(time, span) {
  const places = Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(Math.max(span, 1) / 1e6))));
  return `${(time / 1e6).toFixed(places)} s`;
}

function size(number) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; number >= 999.5 && unit < 4; unit += 1) number /= 1000;
  return number === 1 && unit === 0 ? "1 byte" : `${digits(number)} ${units[unit]}`;
}
