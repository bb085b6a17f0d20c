// Draws the spectra of each run: over epochs, and at one epoch; with choices of layer, groups and epoch.
'use strict';
(() => {
  const GRID = '#e6e6e6', SOFT = '#5c5c5c';
  // by default Plotly has a button that uploads the figure to its maker
  const SETTINGS = {showSendToCloud: false, plotlyServerURL: '', displaylogo: false, responsive: true, showTips: false,
    modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d', 'zoomIn2d', 'zoomOut2d']};

  // Plotly reads tags and entities in what it is given; names from data are no markup
  const plain = text => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');

  function decode(text) {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    // null is a gap in a line; NaN and what lies beyond float32 are no values
    return Array.from({length: bytes.length / 4}, (_, place) => {
      const value = view.getFloat32(4 * place, true);
      return Number.isFinite(value) ? value : null;
    });
  }

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function layout(horizontal, vertical, more = {}) {
    return {margin: {l: 62, r: 12, t: 8, b: 42}, height: 330, showlegend: false, hovermode: 'closest',
      font: {family: 'system-ui, sans-serif', size: 12, color: '#222'}, paper_bgcolor: '#fff', plot_bgcolor: '#fff',
      dragmode: window.matchMedia('(pointer: coarse)').matches ? false : 'zoom',
      xaxis: {title: {text: horizontal}, gridcolor: GRID, zeroline: false, fixedrange: false},
      yaxis: {title: {text: vertical}, gridcolor: GRID, zeroline: false, exponentformat: 'power', ...more}};
  }

  // the first index full, the last pale
  function shade(colour, place, places) {
    const paleness = 0.65 * place / Math.max(places - 1, 1);
    const parts = [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
    return `rgb(${parts.map(part => Math.round((1 - paleness) * part + 255 * paleness)).join(',')})`;
  }

  class Run {
    constructor(place) {
      this.place = place;
      this.data = JSON.parse(document.getElementById(place.dataset.source).textContent);
      this.at = this.data.epochs.length - 1;
      this.shown = new Set(this.data.groups.filter(group => group.kind !== 'margin').map(group => group.name));
      this.every = false;
      this.drawCurves = () => {};
      this.build();
      this.choose(0);
      this.drawCurves();
    }

    build() {
      const layers = element('select', {ariaLabel: 'layer'});
      this.data.layers.forEach((layer, place) => layers.append(new Option(`${layer.name}   ${layer.maps}`, place)));
      layers.addEventListener('change', () => this.choose(Number(layers.value)));
      const every = element('select', {ariaLabel: 'indices'}, new Option('a few indices', ''), new Option('every index', '1'));
      every.addEventListener('change', () => { this.every = every.value !== ''; this.drawOver(); });
      this.slider = element('input', {type: 'range', min: 0, max: this.data.epochs.length - 1, value: this.at, ariaLabel: 'epoch'});
      this.slider.addEventListener('input', () => this.moveTo(Number(this.slider.value)));
      this.saysEpoch = element('output');
      this.saysIndices = element('figcaption');
      this.heading = element('p', {className: 'layer'});
      this.over = element('div', {className: 'plot'});
      this.one = element('div', {className: 'plot'});
      this.place.append(
        element('div', {className: 'controls'}, element('label', {}, 'layer ', layers), every, this.groups()),
        this.heading,
        element('div', {className: 'plots'},
          element('figure', {}, this.saysIndices, this.over),
          element('figure', {}, element('figcaption', {}, 'at ', this.saysEpoch), this.one,
            element('label', {className: 'slider'}, 'epoch ', this.slider)),
          ...this.curves()));
    }

    groups() {
      const box = element('fieldset', {}, element('legend', {textContent: 'groups'}));
      for (const group of this.data.groups) {
        const tick = element('input', {type: 'checkbox', checked: this.shown.has(group.name)});
        tick.addEventListener('change', () => {
          if (tick.checked) this.shown.add(group.name); else this.shown.delete(group.name);
          this.draw();
        });
        const swatch = element('span', {className: `swatch ${group.kind}`});
        swatch.style.color = group.colour;
        box.append(element('label', {}, tick, swatch, group.name));
      }
      return box;
    }

    choose(place) {
      const layer = this.data.layers[place], epochs = this.data.epochs.length, width = layer.width;
      const values = decode(layer.values);
      // (group, epoch, index)
      this.value = (group, epoch, index) => values[(group * epochs + epoch) * width + index];
      this.floor = decode(layer.floor);
      this.layer = layer;
      const positive = values.filter(value => value > 0).map(Math.log10);
      const least = positive.reduce((one, other) => Math.min(one, other), Infinity);
      const most = positive.reduce((one, other) => Math.max(one, other), -Infinity);
      const range = positive.length ? [least - 0.3, most + 0.2] : [-1, 1];
      this.axis = {type: 'log', range, dtick: range[1] - range[0] > 2 ? 1 : 'D2'};
      const few = `of groups ${layer.front.map(index => `σ${index}`).join(', ')}, paler as the index rises; of all every index`;
      this.saysIndices.textContent = `over training: ${few}; dotted: noise floor`;
      this.heading.textContent = `${layer.name}   ${layer.maps}`;
      this.draw();
    }

    draw() { this.drawOver(); this.drawOne(); }

    moveTo(place) {
      this.at = place;
      this.slider.value = place;
      Plotly.relayout(this.over, {shapes: this.mark()});
      this.drawOne();
    }

    mark() {
      const epoch = this.data.epochs[this.at];
      return [{type: 'line', x0: epoch, x1: epoch, y0: 0, y1: 1, yref: 'paper', line: {color: '#999', width: 1, dash: 'dot'}}];
    }

    drawn() { return this.data.groups.map((group, place) => ({...group, place})).filter(group => this.shown.has(group.name)); }

    drawOver() {
      const {epochs} = this.data, {layer} = this, traces = [];
      const alone = epochs.length === 1 ? 'markers' : 'lines';
      for (const group of this.drawn()) {
        const all = group.kind === 'all';
        const indices = all || this.every ? Array.from({length: layer.width}, (_, index) => index + 1) : layer.front;
        indices.forEach((index, order) => traces.push({
          type: 'scatter', mode: alone, x: epochs, y: epochs.map((_, epoch) => this.value(group.place, epoch, index - 1)),
          line: {color: shade(group.colour, order, indices.length), width: all ? 0.7 : 1.7, dash: group.kind === 'margin' ? 'dash' : 'solid'},
          marker: {color: shade(group.colour, order, indices.length)},
          meta: plain(`${layer.name} · ${group.name} · σ${index}`),
          hovertemplate: '%{meta}<br>epoch %{x}: %{y:.4g}<extra></extra>'}));
      }
      traces.push({type: 'scatter', mode: alone, x: epochs, y: this.floor, line: {color: '#bbb', width: 1, dash: 'dot'},
        marker: {color: '#bbb'}, meta: plain(`${layer.name} · noise floor of all`), hovertemplate: '%{meta}<br>epoch %{x}: %{y:.2g}<extra></extra>'});
      const settings = layout('epoch', 'singular value', this.axis);
      settings.shapes = this.mark();
      Plotly.react(this.over, traces, settings, SETTINGS).then(() => {
        if (this.listens) return;
        this.listens = true;
        this.over.on('plotly_click', event => this.moveTo(epochs.indexOf(event.points[0].x)));
      });
    }

    drawOne() {
      const {layer} = this, epoch = this.data.epochs[this.at];
      const indices = Array.from({length: layer.width}, (_, index) => index + 1);
      this.saysEpoch.textContent = `epoch ${epoch}`;
      const traces = this.drawn().map(group => ({
        type: 'scatter', mode: 'lines+markers', x: indices, y: indices.map(index => this.value(group.place, this.at, index - 1)),
        line: {color: group.colour, width: group.kind === 'all' ? 1 : 1.7, dash: group.kind === 'margin' ? 'dash' : 'solid'},
        marker: {color: group.colour, size: 5}, meta: plain(`${layer.name} · ${group.name} · epoch ${epoch}`),
        hovertemplate: '%{meta}<br>σ%{x}: %{y:.4g}<extra></extra>'}));
      const settings = layout('index', 'singular value', this.axis);
      if (layer.width < 12) settings.xaxis.dtick = 1;
      Plotly.react(this.one, traces, settings, SETTINGS);
    }

    curves() {
      const {epochs, lines} = this.data.curves, colours = ['#333333', '#0072B2', '#999999', '#56B4E9'];
      if (!lines.length || epochs.length < 2) return [];
      const place = element('div', {className: 'plot'});
      const decoded = lines.map(line => decode(line.values));
      const traces = lines.map((line, order) => ({
        type: 'scatter', mode: 'lines', x: epochs, y: decoded[order], name: plain(line.name),
        line: {color: colours[order % colours.length], width: 1.5, dash: line.name.includes('metric') ? 'dot' : 'solid'},
        hovertemplate: `${plain(line.name)}<br>epoch %{x}: %{y:.4g}<extra></extra>`}));
      const positive = decoded.every(values => values.every(value => value === null || value > 0));
      const settings = layout('epoch', '', positive ? {type: 'log'} : {});
      Object.assign(settings, {height: 240, showlegend: true, legend: {orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0}});
      settings.margin = {...settings.margin, t: 30};
      this.drawCurves = () => Plotly.newPlot(place, traces, settings, SETTINGS);
      return [element('figure', {}, element('figcaption', {textContent: 'loss and metric'}), place)];
    }
  }

  // the first runs are drawn at once, another when it comes near the window; all are before the page is printed
  const waiting = new Set(document.querySelectorAll('.spectra'));
  const start = place => { if (waiting.delete(place)) new Run(place); };
  const watch = new IntersectionObserver(
    entries => entries.filter(entry => entry.isIntersecting).forEach(entry => start(entry.target)), {rootMargin: '600px'});
  [...waiting].slice(0, 2).forEach(start);
  waiting.forEach(place => watch.observe(place));
  const folded = document.querySelectorAll('details.printed');
  window.addEventListener('beforeprint', () => {
    waiting.forEach(start);
    folded.forEach(details => { details.open = true; });
  });
})();
