"""Measured pools that ship: npz files named ``<space>-<size>.npz``, read by :mod:`gnomon.records.shipped`."""
