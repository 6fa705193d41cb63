"""Measures job queues side by side: what the folders `jobs` and `jobs_redis` have in common."""
