"""Pages of HTML that are one file and ask no network for anything: escaping, the whole document, tables to sort."""
