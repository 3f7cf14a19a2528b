"""The RESP door as its users meet it: beside a redis-server, under real clients, under fire.

What redis-server 7.0 has is compared with it, reply by reply (differential.py). Each test that can be also runs against
redis-server itself: what fails there is an error of the test.
"""
