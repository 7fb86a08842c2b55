"""Readers of the forms in which people keep their own data; each gives a `medvl.sources.tables.base.Table`."""
