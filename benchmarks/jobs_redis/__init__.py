"""Job queues on Redis, side by side; the yardstick is BullMQ in Node."""
