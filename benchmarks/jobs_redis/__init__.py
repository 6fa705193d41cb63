"""Job queues on Redis, side by side with BullMQ in Node."""
