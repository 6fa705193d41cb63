"""What is done in a contestant's process: a module for each work, with a coroutine `measure`.

express.mjs does the same in Node.
"""
