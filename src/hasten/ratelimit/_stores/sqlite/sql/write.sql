-- Insert or update rows, given as [name, expires_us, state]. An existing row keeps the later expiry.
INSERT INTO hasten_limits (name, expires_us, state)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]')
FROM json_each(:rows) WHERE true
ON CONFLICT (name) DO UPDATE
SET expires_us = max(expires_us, excluded.expires_us), state = excluded.state
