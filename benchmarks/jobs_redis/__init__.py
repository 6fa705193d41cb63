"""A benchmark that compares job queues on Redis, BullMQ in Node among them."""
