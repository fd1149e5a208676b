"""Measuring a device: the pipeline as it is, in processes of its own, with figures that say how sure they are.

`plan` says what is measured; `worker` measures one configuration in a fresh process (`measure`, `ort_profile`), which
`runner` starts and watches; `ceiling` is what a provider reaches at most, `capacity` what fits into memory; `record` is
the JSON, of which `summary` makes figures, `plots` pictures and `compare` ratios.
"""
