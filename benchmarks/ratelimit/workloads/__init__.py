"""What runs in the process of a contestant: a module for each workload, with a coroutine `measure`.

express.mjs does the same in Node.
"""
