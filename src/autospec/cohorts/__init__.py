"""From a folder of files to a prepared cohort: layouts, readers, one part per person, the whole, its quality page."""
