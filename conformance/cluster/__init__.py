"""A run over the workers of a Dask scheduler. ``distributed`` is an optional extra: only ``client`` and
``worker`` import it, and nothing imports them until ``--engine dask`` or ``conform worker`` asks for it.
"""
