// A click on a heading sorts; a table with data-find has a field for words and choices of values above it.
'use strict';
(() => {
  const shown = cell => cell.dataset.value ?? cell.textContent;
  const isNumber = text => text !== '' && Number.isFinite(Number(text));

  // numbers before words, what is not known behind both, whichever way it goes
  function compare(one, other, direction) {
    if (one === '' || other === '') return (one === '') - (other === '');
    if (isNumber(one) && isNumber(other)) return direction * (Number(one) - Number(other));
    if (isNumber(one) !== isNumber(other)) return isNumber(one) ? -1 : 1;
    return direction * one.localeCompare(other, undefined, {numeric: true});
  }

  // of a long table the first rows that are left are printed; the page says so
  const PRINTED = 60;
  function markPrinted(table) {
    const left = [...table.tBodies[0].rows].filter(row => !row.hidden);
    left.forEach((row, place) => row.classList.toggle('unprinted', place >= PRINTED));
    const said = table.parentElement.nextElementSibling;
    if (said) said.textContent = left.length > PRINTED ? `Printed are the first ${PRINTED} of ${left.length} rows.` : '';
  }

  function sort(table, head) {
    const direction = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', direction > 0 ? 'ascending' : 'descending');
    const place = head.cellIndex, body = table.tBodies[0];
    const keyed = [...body.rows].map(row => [shown(row.cells[place]), row]);
    keyed.sort((a, b) => compare(a[0], b[0], direction));
    body.append(...keyed.map(pair => pair[1]));
    markPrinted(table);
  }

  function addSorting(table) {
    for (const head of table.tHead.rows[0].cells) {
      head.tabIndex = 0;
      head.addEventListener('click', () => sort(table, head));
      head.addEventListener('keydown', event => { if (event.key === 'Enter') sort(table, head); });
    }
  }

  function choice(table, head) {
    const select = document.createElement('select');
    const values = new Set([...table.tBodies[0].rows].map(row => row.cells[head.cellIndex].textContent));
    select.setAttribute('aria-label', head.textContent);
    select.append(new Option(`${head.textContent}: any`, ''));
    const order = (a, b) => a.localeCompare(b, undefined, {numeric: true});
    for (const value of [...values].sort(order)) select.append(new Option(`${head.textContent}: ${value}`, value));
    select.dataset.column = head.cellIndex;
    return select;
  }

  function addFinding(table) {
    const bar = document.createElement('div'), words = document.createElement('input');
    const count = document.createElement('output');
    bar.className = 'find';
    words.type = 'search';
    words.placeholder = 'find words in rows';
    words.setAttribute('aria-label', 'find words in rows');
    const choices = [...table.tHead.rows[0].cells].filter(head => head.dataset.choose).map(head => choice(table, head));
    bar.append(words, ...choices, count);
    table.parentElement.before(bar);
    const narrow = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(word => word);
      const chosen = choices.filter(select => select.selectedIndex > 0);
      let left = 0;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !(wanted.every(word => text.includes(word))
          && chosen.every(select => row.cells[select.dataset.column].textContent === select.value));
        left += !row.hidden;
      }
      count.textContent = `${left} of ${table.tBodies[0].rows.length} rows`;
      markPrinted(table);
    };
    words.addEventListener('input', narrow);
    for (const select of choices) select.addEventListener('change', narrow);
    narrow();
  }

  for (const table of document.querySelectorAll('table.sortable')) {
    const said = document.createElement('p');
    said.className = 'first-rows';
    table.parentElement.after(said);
    addSorting(table);
    markPrinted(table);
    if (table.dataset.find) addFinding(table);
  }
})();
