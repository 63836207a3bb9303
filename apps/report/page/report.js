// SPDX-License-Identifier: Apache-2.0
// Draws the charts of the page from the JSON in #data with Chart.js.
'use strict';
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const variants = data.variants.map((variant, index) => ({
    ...variant,
    shown: true,
    tint: index % 8,
    // From the ninth variant on colours come again, with another dash and shape.
    mark: (index + 3 * Math.floor(index / 8)) % 8,
  }));
  if (variants.length === 0 || typeof Chart === 'undefined') {
    return;
  }

  const byId = (id) => document.getElementById(id);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const shapes = ['circle', 'rectRot', 'triangle', 'rect', 'star', 'crossRot', 'rectRounded', 'cross'];
  const dashes = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [12, 4], [1, 2], [6, 2, 2, 2, 2, 2]];
  const compact = new Intl.NumberFormat('en', {notation: 'compact', maximumSignificantDigits: 3});
  const figure = (value) => Number(value.toPrecision(4)).toString();
  const isNumber = (value) => typeof value === 'number';

  function duration(seconds) {
    if (seconds < 60) {
      return Number(seconds.toPrecision(3)) + ' s';
    }
    const units = seconds < 3600 ? [60, 'min', 's'] : [3600, 'h', 'min'];
    const rest = Math.round((seconds % units[0]) / (units[0] / 60));
    return `${Math.floor(seconds / units[0])} ${units[1]}` + (rest ? ` ${rest} ${units[2]}` : '');
  }

  function bytes(value) {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let step = 0;
    for (; value >= 1023.5 && step < 4; ++step) {
      value /= 1024;
    }
    return `${Number(value.toPrecision(3))} ${units[step]}`;
  }

  const axes = {
    step: {title: 'steps', text: (value) => compact.format(value)},
    tokens: {title: 'tokens', text: (value) => compact.format(value)},
    seconds: {title: 'training time', text: duration},
  };
  const costs = {
    parameters: {title: 'parameters', text: (value) => compact.format(value)},
    speed: {title: 'tokens/s', text: (value) => compact.format(value)},
    memory: {title: 'peak memory', text: bytes},
    seconds: {title: 'training time', text: duration},
  };

  // ---- the numbers

  const mean = (list) => list.reduce((sum, value) => sum + value, 0) / list.length;

  /** Moving average that forgets over a fortieth of the curve; gaps stay gaps. */
  function smoothed(list) {
    const keep = Math.exp(-40 / Math.max(40, list.length));
    let sum = 0;
    let weight = 0;
    return list.map((value) => {
      if (!isNumber(value)) {
        return value;
      }
      sum = keep * sum + value;
      weight = keep * weight + 1;
      return sum / weight;
    });
  }

  /** One point a step: x, mean, least and most over the seeds that have a value there. */
  function curve(variant, part, quantity, axis, smooth) {
    const points = new Map();
    for (const run of variant.runs) {
      const values = smooth ? smoothed(run[part][quantity]) : run[part][quantity];
      run[part].step.forEach((step, i) => {
        if (isNumber(values[i]) && isNumber(run[part][axis][i])) {
          const point = points.get(step) || {x: [], y: []};
          point.x.push(run[part][axis][i]);
          point.y.push(values[i]);
          points.set(step, point);
        }
      });
    }
    return [...points.keys()].sort((a, b) => a - b).map((step) => {
      const {x, y} = points.get(step);
      return {x: mean(x), mean: mean(y), least: Math.min(...y), most: Math.max(...y), seeds: y.length};
    });
  }

  /** A variant's final values: where it stands and how far its seeds reach. */
  function outcome(variant, cost) {
    const runs = variant.runs.filter((run) => isNumber(run.metric) && isNumber(run[cost]));
    if (runs.length === 0) {
      return null;
    }
    const values = runs.map((run) => run.metric);
    return {
      runs, x: mean(runs.map((run) => run[cost])), mean: mean(values), least: Math.min(...values), most: Math.max(...values),
    };
  }

  // ---- what Chart.js is told

  function scale(kind, extra = {}) {
    return {
      type: 'linear',
      grid: {color: colour('--grid'), borderColor: colour('--rule'), tickLength: 4},
      ticks: {color: colour('--soft'), maxTicksLimit: 7, maxRotation: 0, callback: kind.text},
      title: {display: Boolean(kind.title), text: kind.title, color: colour('--soft')},
      ...extra,
    };
  }

  function options(x, y, label) {
    return {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      normalized: true,
      layout: {padding: {top: 4, right: 10}},
      interaction: {mode: 'nearest', axis: 'x', intersect: false},
      plugins: {
        legend: {display: false},
        tooltip: {
          backgroundColor: colour('--text'), titleColor: colour('--card'), bodyColor: colour('--card'),
          usePointStyle: true, padding: 10, filter: (item) => !item.dataset.silent, callbacks: label,
        },
      },
      scales: {x, y},
    };
  }

  /** Mean line and band of one variant: three datasets, of which only the first speaks. */
  function curveDatasets(variant, points, marks) {
    const line = colour(`--v${variant.tint}`);
    const common = {hidden: !variant.shown, parsing: false, borderJoinStyle: 'round', tension: 0};
    const edge = {...common, silent: true, pointRadius: 0, pointHitRadius: 0, borderWidth: 0, backgroundColor: line + '2b'};
    const sets = [{
      ...common,
      label: variant.name,
      data: points.map((point) => ({x: point.x, y: point.mean, point})),
      borderColor: line, backgroundColor: line, borderWidth: 2, borderDash: dashes[variant.mark],
      pointStyle: shapes[variant.mark], pointRadius: marks ? 4 : points.length === 1 ? 4 : 0, pointHoverRadius: 5,
    }];
    if (points.some((point) => point.seeds > 1)) {
      sets.push({...edge, data: points.map((point) => ({x: point.x, y: point.least}))});
      sets.push({...edge, data: points.map((point) => ({x: point.x, y: point.most})), fill: '-1'});
    }
    return sets;
  }

  function curveChart(part, quantity, state) {
    const smooth = state.smooth && part === 'training';
    const axis = axes[state.axis];
    const logarithmic = state.log && quantity === 'loss';
    const datasets = variants.flatMap((variant) => {
      const points = curve(variant, part, quantity, state.axis, smooth);
      return curveDatasets(variant, points, part === 'validation' && points.length <= 30);
    });
    const label = {
      title: (items) => (items.length ? `${axis.title} ${axis.text(items[0].parsed.x)}` : ''),
      label: (item) => {
        const {mean: value, least, most, seeds} = item.raw.point;
        return ` ${item.dataset.label}  ${figure(value)}` + (seeds > 1 ? `  (${figure(least)}..${figure(most)})` : '');
      },
    };
    const y = scale({title: '', text: (value) => figure(value)}, logarithmic ? {type: 'logarithmic'} : {});
    return {type: 'line', data: {datasets}, options: options(scale(axis), y, label)};
  }

  function costDatasets(variant, cost) {
    const result = outcome(variant, cost);
    if (result === null) {
      return [];
    }
    const line = colour(`--v${variant.tint}`);
    const common = {hidden: !variant.shown, parsing: false, borderColor: line, backgroundColor: line, showLine: false};
    const sets = [{
      ...common, label: variant.name, data: [{x: result.x, y: result.mean, result}],
      pointStyle: shapes[variant.mark], pointRadius: 7, pointHoverRadius: 8, pointBorderWidth: 2, order: 1,
    }];
    if (result.runs.length > 1) {
      sets.push({
        ...common, silent: true, data: result.runs.map((run) => ({x: run[cost], y: run.metric})),
        backgroundColor: line + '80', borderWidth: 0, pointRadius: 3, pointHitRadius: 0, order: 2,
      });
      // The reach of the seeds: a line with a dash at either end.
      sets.push({
        ...common, silent: true, data: [{x: result.x, y: result.least}, {x: result.x, y: result.most}], showLine: true,
        borderWidth: 1.5, pointStyle: 'line', pointRadius: 6, pointHitRadius: 0, pointBorderWidth: 1.5, order: 3,
      });
    }
    return sets;
  }

  /** Names beside their points, moved up or down where they would overlap, left out where there is no room. */
  const names = {
    id: 'names',
    afterDatasetsDraw(chart) {
      const {ctx, chartArea} = chart;
      ctx.save();
      ctx.font = '600 12px ' + Chart.defaults.font.family;
      ctx.textBaseline = 'middle';
      const taken = [];
      chart.data.datasets.forEach((dataset, i) => {
        if (dataset.silent || !chart.isDatasetVisible(i)) {
          return;
        }
        const at = chart.getDatasetMeta(i).data[0];
        const name = dataset.label.length > 28 ? dataset.label.slice(0, 26) + '\u2026' : dataset.label;
        const width = ctx.measureText(name).width;
        const left = at.x + 12 + width > chartArea.right ? at.x - 12 - width : at.x + 12;
        const fits = (y) => left >= chartArea.left && y >= chartArea.top + 8 && y <= chartArea.bottom - 8 &&
            !taken.some((box) => left < box.right && left + width > box.left && Math.abs(y - box.y) < 15);
        const y = [0, -8, 8, -15, 15].map((shift) => at.y + shift).find(fits);
        if (y === undefined) {
          return;
        }
        taken.push({left, right: left + width, y});
        ctx.lineWidth = 3;
        ctx.strokeStyle = colour('--card');
        ctx.strokeText(name, left, y);
        ctx.fillStyle = dataset.borderColor;
        ctx.fillText(name, left, y);
      });
      ctx.restore();
    },
  };

  function costChart(state) {
    const cost = costs[state.cost];
    const label = {
      title: (items) => (items.length ? items[0].dataset.label : ''),
      label: (item) => {
        const {x, mean: value, least, most, runs} = item.raw.result;
        const range = runs.length > 1 ? ` (${figure(least)}..${figure(most)})` : '';
        return [` ${data.metric} ${figure(value)}${range}`, ` ${cost.title} ${cost.text(x)}`];
      },
    };
    // Variants matched in size stand at nearly the same place; a quarter of the width on either side keeps them readable.
    const results = variants.map((variant) => outcome(variant, state.cost)).filter(Boolean);
    const xs = results.map((result) => result.x);
    const least = Math.min(...xs);
    const most = Math.max(...xs);
    const logarithmic = least > 0 && most > 8 * least;
    const margin = Math.max((most - least) * 0.25, most * 0.02);
    const reach = logarithmic ? {type: 'logarithmic', min: least / 1.5, max: most * 1.5}
                              : {min: Math.max(0, least - margin), max: most + margin};
    const ticks = {...scale(cost).ticks, includeBounds: false};
    const x = scale(cost, xs.length ? {...reach, ticks} : {});
    const level = results.every((result) => result.least === results[0].mean && result.most === results[0].mean);
    const y = scale({title: '', text: (value) => figure(value)},
                    level && results.length ? {min: results[0].mean * 0.9, max: results[0].mean * 1.1 || 1} : {grace: '12%'});
    const datasets = variants.flatMap((variant) => costDatasets(variant, state.cost));
    const settings = options(x, y, label);
    settings.interaction = {mode: 'nearest', intersect: true};
    return {type: 'scatter', data: {datasets}, options: settings, plugins: [names]};
  }

  // ---- the page

  const state = {axis: 'step', cost: 'parameters', smooth: true, log: false};
  const charts = new Map();

  function draw(id, config) {
    const old = charts.get(id);
    if (old) {
      old.destroy();
    }
    byId(id).closest('figure').hidden = config.data.datasets.every((dataset) => dataset.data.length === 0);
    byId(id).setAttribute('aria-label', byId(id).closest('figure').querySelector('figcaption').innerText);
    charts.set(id, new Chart(byId(id), config));
  }

  function drawAll() {
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    draw('train-loss', curveChart('training', 'loss', state));
    draw('valid-metric', curveChart('validation', 'metric', state));
    draw('valid-loss', curveChart('validation', 'loss', state));
    draw('metric-cost', costChart(state));
  }

  function addLegend() {
    for (const variant of variants) {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = `v${variant.tint}`;
      button.setAttribute('aria-pressed', 'true');
      button.innerHTML = '<svg viewBox="0 0 30 12" aria-hidden="true"><line x1="0" y1="6" x2="30" y2="6" ' +
          'stroke="currentColor" stroke-width="2.5"/></svg>';
      button.querySelector('line').setAttribute('stroke-dasharray', dashes[variant.mark].join(' ') || 'none');
      button.append(variant.name);
      button.addEventListener('click', () => {
        variant.shown = !variant.shown;
        button.setAttribute('aria-pressed', String(variant.shown));
        drawAll();
      });
      byId('legend').append(button);
    }
  }

  function addControls() {
    const has = (test) => variants.some((variant) => variant.runs.some(test));
    const varied = (axis) => has((run) => ['training', 'validation'].some((part) => run[part][axis].some((value) => value > 0)));
    for (const input of document.querySelectorAll('input[name=axis]')) {
      input.disabled = input.value !== 'step' && !varied(input.value);
      input.addEventListener('change', () => { state.axis = input.value; drawAll(); });
    }
    for (const option of byId('cost').options) {
      option.disabled = !has((run) => isNumber(run[option.value]));
    }
    byId('cost').addEventListener('change', (event) => { state.cost = event.target.value; drawAll(); });
    byId('smooth').addEventListener('change', (event) => { state.smooth = event.target.checked; drawAll(); });
    byId('log').addEventListener('change', (event) => { state.log = event.target.checked; drawAll(); });
    for (const place of document.querySelectorAll('.metric-name')) {
      // The final metric may be that of the test data; the curve is always that of the validation data.
      const curve = place.classList.contains('measured-on-validation');
      place.textContent = curve ? data.metric.replace(/^(test|validation) /, '') : data.metric;
    }
    byId('bands').hidden = !variants.some((variant) => variant.runs.length > 1);
  }

  byId('charts').hidden = false;
  addLegend();
  addControls();
  drawAll();
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawAll);
  const print = (printing) => () => {
    document.documentElement.classList.toggle('printing', printing);
    drawAll();
  };
  addEventListener('beforeprint', print(true));
  addEventListener('afterprint', print(false));
})();
