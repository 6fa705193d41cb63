"""The workloads: modules with an async function `measure`, which runs in a contestant's process.

express.mjs has the same workloads for Node.
"""
