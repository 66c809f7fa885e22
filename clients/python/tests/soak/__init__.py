"""The soak: clients of every manner that ask what they know the answer to, and what is held against the server.

`clients.py` is the program that one process of clients runs; `test_soak.py` starts several and watches the server.
"""
