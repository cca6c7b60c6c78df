"""Zero-cost proxies: figures of an untrained network that say something about how well it will learn.

Each is one class, a :class:`~gnomon.tasks.proxies.base.Proxy`; ``quality=proxy`` ranks architectures by one or several
of them, and :func:`~gnomon.tasks.proxies.scorer.scores` gives them as columns.
"""
