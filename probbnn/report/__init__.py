"""The report of a run or a comparison: tables, figures and pages, made from its directory alone.

- `load`: what is on record
- `table`: a table, and how numbers are written; `run_tables` and `verdicts`: what a run's say
- `figures`: Matplotlib figures; `captions`: those of a run, each with what it shows in words
- `images`: test images and what is predicted of them
- `page`: all of it as HTML and Markdown
- `comparison`: the tables and figures of a comparison
"""
