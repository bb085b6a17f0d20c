"""From a folder of files to a prepared cohort: layouts, readers, one part per subject, the whole, its quality page."""
