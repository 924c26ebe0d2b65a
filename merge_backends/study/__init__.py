"""The merging study: a folder of text classification tasks in, a table of methods x tasks out."""
