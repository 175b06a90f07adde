"""What processes say to one another: messages, frames, payloads and shared buffers."""
