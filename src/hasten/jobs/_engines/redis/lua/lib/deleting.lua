-- uses: flows deduplication schedule_states
-- Deleting jobs.

-- Deletes all keys of a job, except its lock, which was released before or expires. UNLINK frees the memory of a long
-- log, or of many children, in the background.
local function delete_keys(job_key)
  call('UNLINK', job_key, job_key .. ':logs', job_key .. ':dependencies', job_key .. ':processed',
    job_key .. ':failed', job_key .. ':unsuccessful')
end

-- Deletes a job that was removed from its state before. Its parent no longer waits for it, and neither does its
-- scheduler.
local function delete_job(q, id)
  local fields = read_fields(q.base .. id, 'parentKey', 'rjk')
  if fields[1] then
    attempt(id, unlink, fields[1], q.base .. id)
  end
  if fields[2] then
    attempt(id, run_ended, q, fields[2], id)
  end
  delete_keys(q.base .. id)
end
