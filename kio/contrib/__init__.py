"""kio as the cache of web frameworks, each a module that needs its framework and is imported by nothing else:

    kio.contrib.django.KioCache       for Django's settings.CACHES
    kio.contrib.cachelib.KioCache     for cachelib, and for Flask-Caching through it

Their values are pickles (pickled.py), as the callers of these frameworks expect. What a pickle holds can run code, so a
keyspace with a cache in it is for programs that trust each other; nothing else of kio reads pickles.

kio evicts nothing to make room: give a cache a keyspace of its own, timeouts, and a disk that holds it.
"""
