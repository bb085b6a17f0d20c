"""From finished runs to figures, tables and a paragraph on methods."""
