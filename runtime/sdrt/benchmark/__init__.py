"""Measures the pipeline on a device, in separate processes, and reports how certain each figure is.

`configurations` says what is measured. `worker` measures one configuration in a fresh process (`measure`,
`ort_profile`); `runner` starts and watches that process. `ceiling` measures what a provider reaches at most, and
`capacity` what fits into memory. `record` is the JSON. `summary` makes figures of it, `plots` draws it, and `compare`
makes ratios.
"""
