"""The contestants: each module is one, and names its class `CONTESTANT`.

A library is imported when an object is made, in the process of a verb, so that the classes can be
imported where the library is missing.
"""
