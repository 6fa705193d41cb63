-- uses: flows deduplication
-- Deleting jobs.

-- Deletes all keys of a job, except its lock, which was released before or expires. UNLINK frees the memory of a long
-- log, or of many children, in the background.
local function delete_keys(job_key)
  call('UNLINK', job_key, job_key .. ':logs', job_key .. ':dependencies', job_key .. ':processed',
    job_key .. ':failed', job_key .. ':unsuccessful')
end

-- Deletes a job that was removed from its state before. Its parent no longer waits for it.
local function delete_job(q, id)
  local parent_key = read_field(q.base .. id, 'parentKey')
  if parent_key then
    attempt(id, unlink, parent_key, q.base .. id)
  end
  delete_keys(q.base .. id)
end
