-- uses: queue
-- The running workers of a queue that report themselves. The sorted set `hasten:workers` has their ids; the score is
-- when a worker counts as dead unless it reports again, in ms by the server's clock. The hash `hasten:worker-reports`
-- has by id the lifetime of the report in ms, a space and the report. Both expire with the last worker.
local WORKERS, REPORTS = KEYS[1] .. 'hasten:workers', KEYS[1] .. 'hasten:worker-reports'

local function forget_workers(ids)
  in_portions('ZREM', WORKERS, ids)
  in_portions('HDEL', REPORTS, ids)
end
